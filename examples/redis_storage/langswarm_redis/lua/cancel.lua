-- Asks the processes that hold leases to end their turns, or tells which were asked.
--
-- ARGV     prefix, the mark before an owner, 'ask' or 'tell', then each lease: session id, token
-- Returns  'ask': the tokens that are still held; 'tell': those of them that somebody asked for
local prefix, mark, asks = ARGV[1], ARGV[2], ARGV[3] == 'ask'
local tokens = {}
for at = 4, #ARGV, 2 do
  local session = prefix .. 's:' .. ARGV[at]
  local row = redis.call('HMGET', session, 'turn_token', 'turn_owner', 'version')
  if row[1] == ARGV[at + 1] then
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
