-- Asks the processes that hold leases to end their turns, or tells which were asked.
--
-- ARGV     prefix, the mark before an owner, 'ask' or 'tell', then each lease: session id, token,
--          whose session it must be, its number ('' for any)
-- Returns  'ask': the tokens that are still held; 'tell': those of them that somebody asked for
local prefix, mark, asks = ARGV[1], ARGV[2], ARGV[3] == 'ask'
local tokens = {}
for at = 4, #ARGV, 4 do
  local session = prefix .. 's:' .. ARGV[at]
  local row = redis.call('HMGET', session, 'turn_token', 'turn_owner', 'version', 'user_id', 'number')
  local is_own = row[4] == ARGV[at + 2] and (ARGV[at + 3] == '' or ARGV[at + 3] == row[5])
  if is_own and row[1] == ARGV[at + 1] then
    local owner = row[2] or ''
    local is_marked = string.sub(owner, 1, #mark) == mark
    if asks and not is_marked then
      redis.call('HSET', session, 'turn_owner', mark .. owner, 'version', row[3] + 1)
    end
    if asks or is_marked then
      tokens[#tokens + 1] = row[1]
    end
  end
end
return tokens
