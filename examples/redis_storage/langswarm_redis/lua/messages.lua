-- The rows of messages, from the newest or, where 'after' is given, from the oldest.
--
-- KEYS[1]  the session's hash
-- ARGV     prefix, session id, how many at most, before and after ('' or a number), 'answered' or
--          '', 'system' or '', whose session it must be, its number ('' for any)
-- Returns  false if there is no session; else what changes when what is there is changed, the rows,
--          and the number that the rows looked at last had ('' when there are no more)
local session, prefix, id = KEYS[1], ARGV[1], ARGV[2]
local limit, before, after = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local CHUNK = 256
local row = redis.call('HMGET', session, 'number', 'user_id', 'edits')
if not row[1] or row[2] ~= ARGV[8] or not (ARGV[9] == '' or ARGV[9] == row[1]) then
  return false
end
local mark = row[1] .. '.' .. row[3]
local unanswered = prefix .. 'u:' .. id
local messages = prefix .. 'm:' .. id
local source = ARGV[7] ~= '' and prefix .. 'y:' .. id or messages
local choosy = ARGV[6] ~= '' and redis.call('ZCARD', unanswered) > 0

local rows, seen, left_out = {}, 0, {}
local function is_wanted(message)
  if not choosy then
    return true
  end
  local turn = string.match(message, '^%d+ (%d+)')
  if left_out[turn] == nil then
    left_out[turn] = redis.call('ZSCORE', unanswered, turn) and true or false
  end
  return not left_out[turn]
end
local function read(size)
  if after == '' then
    local from = before == '' and '+inf' or '(' .. before
    return redis.call('ZREVRANGEBYSCORE', source, from, '-inf', 'LIMIT', 0, size)
  end
  local to = before == '' and '+inf' or '(' .. before
  return redis.call('ZRANGEBYSCORE', source, '(' .. after, to, 'LIMIT', 0, size)
end

while #rows < limit and seen < CAP do
  local size = math.min(choosy and CHUNK or limit - #rows, CAP - seen)
  local found = read(size)
  for _, each in ipairs(found) do
    if #rows >= limit then
      break
    end
    seen = seen + 1
    local seq = string.match(each, '^%d+')
    if after == '' then
      before = seq
    else
      after = seq
    end
    if source ~= messages then
      each = redis.call('ZRANGEBYSCORE', messages, seq, seq)[1]
    end
    if is_wanted(each) then
      rows[#rows + 1] = each
    end
  end
  if #found < size then
    return { mark, rows, '' }
  end
end
return { mark, rows, after == '' and before or after }
