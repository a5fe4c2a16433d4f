-- Sessions by their last activity, newest first.
--
-- KEYS[1]  the index: of all sessions or of one user's
-- ARGV     prefix, how many at most, status ('' for any), inactive since ('' or a time), the
--          cursor: activity and number ('' and '' for the first page)
-- Returns  of each session its number and fields; and the activity and number looked at last
--          (false when there are no more)
local index, prefix, limit, status = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local since, activity, number = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local CHUNK = 100
local max = '+inf'
if activity then
  max = string.format('%.0f', activity)
end
if since and (not activity or since <= activity) then
  max = '(' .. string.format('%.0f', since)
end
local sessions, looked, offset = {}, 0, 0
while true do
  local found = redis.call('ZREVRANGEBYSCORE', index, max, '-inf', 'WITHSCORES', 'LIMIT', offset, CHUNK)
  for at = 1, #found, 2 do
    local member, score = found[at], tonumber(found[at + 1])
    local own = string.sub(member, 1, DIGITS)
    if not (score == activity and own >= number) then
      local row = redis.call('HMGET', prefix .. 's:' .. string.sub(member, DIGITS + 1), FIELDS)
      if row[1] and (status == '' or status == row[STATUS]) then
        sessions[#sessions + 1] = { own, row }
      end
      looked = looked + 1
      if #sessions == limit or looked == CAP then
        return { sessions, { string.format('%.0f', score), own } }
      end
    end
  end
  if #found < 2 * CHUNK then
    return { sessions, false }
  end
  offset = offset + CHUNK
end
