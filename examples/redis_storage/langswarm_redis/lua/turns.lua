-- The newest turns: of each its number, first and last seq, their times, and what is noted of it.
--
-- KEYS[1]  the session's hash
-- ARGV     prefix, session id, how many at most, whose session it must be, its number ('' for any)
-- Returns  false if there is no session; else the open turn (false if none is), and the turns,
--          newest first
local session, prefix, id, limit = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local CHUNK = 256
local row = redis.call('HMGET', session, 'number', 'turn_token', 'turn_id', 'user_id')
if not row[1] or row[4] ~= ARGV[4] or not (ARGV[5] == '' or ARGV[5] == row[1]) then
  return false
end
local turns, current, before = {}, nil, '+inf'

local function note(turn)
  local found = redis.call('HMGET', prefix .. 't:' .. id, turn .. ':status', turn .. ':key',
    turn .. ':error', turn .. ':finished')
  for _, each in ipairs(found) do
    current[#current + 1] = each
  end
end
local function collect()
  while limit > 0 do
    local found = redis.call('ZREVRANGEBYSCORE', prefix .. 'm:' .. id, before, '-inf', 'LIMIT', 0, CHUNK)
    for _, message in ipairs(found) do
      local seq, turn, time = string.match(message, '^(%d+) (%d+) %d+ (-?%d+)')
      if not current or current[1] ~= turn then
        if #turns == limit then
          return
        end
        current = { turn, seq, seq, time, time }
        turns[#turns + 1] = current
        note(turn)
      end
      current[2], current[4] = seq, time
      before = '(' .. seq
    end
    if #found < CHUNK then
      return
    end
  end
end
collect()
return { row[2] and row[3] or false, turns }
