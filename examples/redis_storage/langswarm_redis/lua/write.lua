-- Begins, adds to or ends a turn, or appends a whole one, if nothing stands in the way.
--
-- KEYS[1]  the session's hash
-- ARGV     again, nonce, prefix, session id, kind ('append', 'begin', 'add', 'end'), token, owner,
--          lease in microseconds, expected revision, idempotency key, its digest, status, error,
--          provider state, input, output, cached and reasoning tokens, whose session it must be,
--          its number ('' for any), then each message: its id, its row without seq and turn. What may be missing is '' or
--          has a '+' before it.
-- Returns  the session's fields; 'look' if it has to be looked at more closely, nothing having been
--          written; 'made' if this is said again, as the answer was lost, and was made before
local session, again, nonce, prefix, id, kind = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local token, owner, lease, revision = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local status = ARGV[12]
local FIRST = 21

local function key(kind_of_key)
  return prefix .. kind_of_key .. ':' .. id
end
local function optional(text)
  return text ~= '' and string.sub(text, 2) or nil
end
local function whole(number)
  return string.format('%.0f', number)
end

local names = {
  'number', 'version', 'recent', 'status', 'turn_token', 'turn_id', 'revision', 'last_seq',
  'message_count', 'turn_count', 'last_activity', 'errors', 'user_id',
}
local row, found = redis.call('HMGET', session, unpack(names)), {}
for place, name in ipairs(names) do
  found[name] = row[place]
end
if not found.number then
  return 'look'
end
if again == '1' and string.find(found.recent, nonce, 1, true) then
  return 'made'
end
if found.user_id ~= ARGV[19] or not (ARGV[20] == '' or ARGV[20] == found.number) then
  return 'look'
end
local begins = kind == 'append' or kind == 'begin'
if begins then
  if found.turn_token or not WRITABLE[found.status] then
    return 'look'
  end
elseif found.turn_token ~= token then
  return 'look'
end
if revision ~= '' and revision ~= found.revision then
  return 'look'
end
local idempotency = optional(ARGV[10])
if idempotency and redis.call('HEXISTS', key('k'), idempotency) == 1 then
  return 'look'
end
for at = FIRST, #ARGV, 2 do
  if redis.call('HEXISTS', key('i'), ARGV[at]) == 1 then
    return 'look'
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local activity = whole(math.max(now, tonumber(found.last_activity)))
local count = (#ARGV - FIRST + 1) / 2
local last = tonumber(found.last_seq)
local turn = begins and last + 1 or tonumber(found.turn_id)

-- The first write is one that a server without memory refuses; then it refuses none of the others.
local set = {
  'version', found.version + 1, 'revision', found.revision + 1, 'last_seq', last + count,
  'message_count', found.message_count + count, 'last_activity', activity,
  'recent', string.sub(found.recent .. nonce, -RECENT),
}
local function also(name, value)
  set[#set + 1] = name
  set[#set + 1] = value
end
if begins then
  also('turn_count', found.turn_count + 1)
end
if kind == 'begin' then
  also('turn_id', turn)
  also('turn_token', token)
  also('turn_owner', owner)
  also('turn_expires', whole(now + lease))
end
if status == 'failed' then
  also('errors', found.errors + 1)
end
if ARGV[14] ~= '' then
  also('provider_state', optional(ARGV[14]))
end
redis.call('HSET', session, unpack(set))
for place, name in ipairs({ 'input_tokens', 'output_tokens', 'cached_tokens', 'reasoning_tokens' }) do
  if ARGV[14 + place] ~= '0' then
    redis.call('HINCRBY', session, name, ARGV[14 + place])
  end
end
local function has_several_results(message)
  -- A text of a message may quote what only blocks say; a message of blocks has no text.
  if not string.find(message, '^%d+ %-?%d+ %a%d+ %-1 ') then
    return false
  end
  local first = string.find(message, '"tool_result"', 1, true)
  return first and string.find(message, '"tool_result"', first + 1, true)
end
for at = FIRST, #ARGV, 2 do
  last = last + 1
  redis.call('ZADD', key('m'), last, last .. ' ' .. turn .. ' ' .. ARGV[at + 1])
  redis.call('HSET', key('i'), ARGV[at], last)
  if string.match(ARGV[at + 1], '^%d+') == SYSTEM then
    redis.call('ZADD', key('y'), last, last)
  end
  if has_several_results(ARGV[at + 1]) then
    redis.call('ZADD', key('w'), last, last)
  end
end
redis.call('INCRBY', prefix .. 'messages', count)
redis.call('ZADD', prefix .. 'index', activity, id)
redis.call('ZADD', prefix .. 'user:' .. found.user_id, activity, id)
if idempotency then
  redis.call('HSET', key('k'), idempotency, turn)
  redis.call('HSET', key('t'), turn .. ':status', kind == 'begin' and 'open' or 'complete',
    turn .. ':key', idempotency, turn .. ':digest', optional(ARGV[11]))
end

local function ends_early()
  redis.call('HSET', key('t'), turn .. ':status', status, turn .. ':finished', whole(now))
  redis.call('HDEL', key('t'), turn .. ':error')
  if ARGV[13] ~= '' then
    redis.call('HSET', key('t'), turn .. ':error', optional(ARGV[13]))
  end
  for _, message in ipairs(redis.call('ZRANGEBYSCORE', key('m'), turn, '+inf')) do
    if string.match(message, '^%d+ %d+ (%d+)') == ASSISTANT then
      return
    end
  end
  redis.call('ZADD', key('u'), turn, turn)
end

if kind == 'end' then
  redis.call('HDEL', session, 'turn_token', 'turn_owner', 'turn_expires')
  redis.call('ZREM', key('u'), turn)
  if status ~= 'complete' then
    ends_early()
  elseif redis.call('HEXISTS', key('t'), turn .. ':status') == 1 then
    redis.call('HSET', key('t'), turn .. ':status', status, turn .. ':finished', whole(now))
    redis.call('HDEL', key('t'), turn .. ':error')
  end
end
return redis.call('HMGET', session, FIELDS)
