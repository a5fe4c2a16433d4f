-- Sessions by their last activity, newest first; of those with the same, the greatest id first.
--
-- KEYS[1]  the index: of all sessions or of one user's
-- ARGV     prefix, how many at most, status ('' for any), inactive since ('' or a time), the
--          cursor: activity and session id ('' and '' for the first page)
-- Returns  the fields of each session; and the activity and id of the last one read (false when
--          there are no more)
local index, prefix, limit, status = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local since, activity, last = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local CHUNK = 100
local max = '+inf'
if activity then
  max = string.format('%.0f', activity)
end
if since and (not activity or since <= activity) then
  max = '(' .. string.format('%.0f', since)
end
-- As the index compares ids: byte by byte. Lua compares by the server's language.
local function is_behind(id)
  for at = 1, math.min(#id, #last) do
    local own, other = string.byte(id, at), string.byte(last, at)
    if own ~= other then
      return own < other
    end
  end
  return #id < #last
end
local sessions, looked, offset = {}, 0, 0
while true do
  local found = redis.call('ZREVRANGEBYSCORE', index, max, '-inf', 'WITHSCORES', 'LIMIT', offset, CHUNK)
  for at = 1, #found, 2 do
    local id, score = found[at], tonumber(found[at + 1])
    if score ~= activity or is_behind(id) then
      local row = redis.call('HMGET', prefix .. 's:' .. id, FIELDS)
      if row[1] and (status == '' or status == row[STATUS]) then
        sessions[#sessions + 1] = row
      end
      looked = looked + 1
      if #sessions == limit or looked == CAP then
        return { sessions, { string.format('%.0f', score), id } }
      end
    end
  end
  if #found < 2 * CHUNK then
    return { sessions, false }
  end
  offset = offset + CHUNK
end
