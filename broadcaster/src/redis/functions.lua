-- What Tidegate does within Redis, as one step each. Loaded as a library of functions (Redis 7, Valkey), or run as scripts
-- where the server has no functions: `functions.rs` adds the head and the foot of either.
--
-- A channel has one name for everybody, the Redis channel `push:<channel>`, which is KEYS[1]. What it keeps lies beside it, in
-- the same slot of a cluster:
--
--   <key>:stream   stream: the publications, with their offsets as ids (`7-0`); d = payload, t = milliseconds since 1970
--   <key>:meta     hash: o = offset of the newest, e = epoch, v and ve = version and its epoch,
--                  s and l = size and time of the history, as a publisher said them last
--   <key>:key:<k>  string: offset and epoch of the publish with the idempotency key <k>
--
--   <key>:nodes      sorted set: nodes with clients in the channel, by the second until which they are believed to live
--   <key>:node:<n>   hash: the clients of node <n>; values are `<length of the user>:<user><what else is known>`
--   <key>:users      hash: the clients of each user, on all nodes
--
-- where <key> is KEYS[1] in braces, unless it has braces that count already.
--
-- A published message is `\0TG2 <offset> <epoch> <milliseconds>\n` and the payload, so that every node knows its place; with
-- ` d` before the newline it may be sent as a delta.

local MAX_SAFE = 9007199254740991

local function fail(text)
  return redis.error_reply('ERR ' .. text)
end

-- KEYS[1] as a prefix of further keys in the same slot of a cluster.
local function prefix(key)
  local open = string.find(key, '{', 1, true)
  local close = open and string.find(key, '}', open + 1, true)
  if close and close > open + 1 then
    return key
  end
  return '{' .. key .. '}'
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]), tonumber(time[2])
end

local function number(text, name, least)
  local n = tonumber(text)
  if not n or n < least or n > MAX_SAFE or n ~= math.floor(n) then
    return nil, name .. ' must be a whole number from ' .. least .. ' on'
  end
  return n
end

-- Offset and epoch of a channel; a channel without a position gets an epoch.
local function position(meta, seconds, micros)
  local found = redis.call('HMGET', meta, 'o', 'e')
  if found[2] then
    return tonumber(found[1] or 0), found[2]
  end
  local epoch = string.format('%x-%x', seconds, micros)
  redis.call('HSET', meta, 'e', epoch)
  return 0, epoch
end

-- Keeps a position for so many seconds more, never for fewer than it has.
local function remember(meta, ttl)
  if redis.call('TTL', meta) < ttl then
    redis.call('EXPIRE', meta, ttl)
  end
end

-- An error unless all of these keys can be here. While a slot of a cluster moves, its keys lie on either server, and
-- the server that it goes to refuses a question about several keys of which it lacks some. To go on there would begin a
-- second numbering beside the first, and publications of one of the two would be lost. Every function that writes has to
-- ask this first.
local function misplaced(...)
  local found = redis.pcall('EXISTS', ...)
  if type(found) == 'table' and string.find(found.err or '', 'non local key', 1, true) then
    return redis.error_reply('TRYAGAIN the slot of the channel is being moved')
  end
end

local OPTIONS = {
  size = 1, ttl = 1, meta_ttl = 1, idempotency_ttl = 1, version = 1,
  idempotency_key = false, version_epoch = false, history = 0, sharded = 0, delta = 0,
}

-- push_publish <key> <payload> [option value ...] -> offset, epoch, "1" if it was published and "0" if suppressed.
--
-- Options: size and ttl (seconds) of the history, meta_ttl, idempotency_key, idempotency_ttl, version, version_epoch,
-- history 0 (deliver and do not keep), delta 1 (may be sent as a delta to the one before), sharded 1 (SPUBLISH).
local function push_publish(keys, args)
  if #keys ~= 1 or #args < 1 then
    return fail('push_publish takes one key (push:<channel>), a payload, and pairs of option and value')
  end
  local key, payload, given = keys[1], args[1], {}
  if #args % 2 ~= 1 then
    return fail('push_publish: the option ' .. args[#args] .. ' has no value')
  end
  for i = 2, #args, 2 do
    local name, value = args[i], args[i + 1]
    local least = OPTIONS[name]
    if least == nil then
      return fail('push_publish: there is no option ' .. name)
    end
    if least then
      local n, wrong = number(value, name, least)
      if not n then
        return fail('push_publish: ' .. wrong)
      end
      value = n
    end
    given[name] = value
  end
  local command = given.sharded == 1 and 'SPUBLISH' or 'PUBLISH'
  if given.history == 0 then
    redis.call(command, key, payload)
    return { 0, '', '1' }
  end

  local base = prefix(key)
  local meta, stream = base .. ':meta', base .. ':stream'
  local seconds, micros = now()
  local answered = given.idempotency_key and base .. ':key:' .. given.idempotency_key
  local elsewhere = misplaced(meta, stream, answered or stream)
  if elsewhere then
    return elsewhere
  end
  if answered then
    local before = redis.call('GET', answered)
    if before then
      local offset, epoch = string.match(before, '^(%d+) (.*)$')
      return { tonumber(offset), epoch, '0' }
    end
  end
  local offset, epoch = position(meta, seconds, micros)
  if given.version then
    local version_epoch = given.version_epoch or ''
    local seen = redis.call('HMGET', meta, 'v', 've')
    if seen[1] and seen[2] == version_epoch and tonumber(seen[1]) >= given.version then
      return { offset, epoch, '0' }
    end
    redis.call('HSET', meta, 'v', given.version, 've', version_epoch)
  end

  local known = redis.call('HMGET', meta, 's', 'l')
  local size = given.size or tonumber(known[1] or 100)
  local ttl = given.ttl or tonumber(known[2] or 300)
  offset = offset + 1
  local id, ms = string.format('%.0f', offset), string.format('%.0f', seconds * 1000 + math.floor(micros / 1000))
  redis.call('HSET', meta, 'o', id, 's', size, 'l', ttl)
  redis.call('XADD', stream, 'MAXLEN', size, id .. '-0', 'd', payload, 't', ms)
  redis.call('EXPIRE', stream, ttl)
  remember(meta, math.max(given.meta_ttl or 2592000, ttl))
  if answered then
    redis.call('SET', answered, id .. ' ' .. epoch, 'EX', given.idempotency_ttl or 300)
  end
  local place = id .. ' ' .. epoch .. ' ' .. ms .. (given.delta == 1 and ' d' or '')
  redis.call(command, key, '\0TG2 ' .. place .. '\n' .. payload)
  return { offset, epoch, '1' }
end

-- push_history <key> <since or ""> <limit> <reverse 0|1> <meta_ttl> -> offset, epoch, { id, payload, ms ... }.
local function push_history(keys, args)
  local base = prefix(keys[1])
  local meta, stream = base .. ':meta', base .. ':stream'
  local elsewhere = misplaced(meta, stream)
  if elsewhere then
    return elsewhere
  end
  local seconds, micros = now()
  local offset, epoch = position(meta, seconds, micros)
  remember(meta, tonumber(args[4]))
  local since, limit, entries = args[1], tonumber(args[2]), {}
  if limit > 0 then
    local found
    if args[3] == '1' then
      local from = since == '' and '+' or '(' .. since .. '-0'
      found = redis.call('XREVRANGE', stream, from, '-', 'COUNT', limit)
    else
      local from = since == '' and '-' or '(' .. since .. '-0'
      found = redis.call('XRANGE', stream, from, '+', 'COUNT', limit)
    end
    for _, entry in ipairs(found) do
      local fields = entry[2]
      entries[#entries + 1] = string.match(entry[1], '^%d+')
      entries[#entries + 1] = fields[2]
      entries[#entries + 1] = fields[4]
    end
  end
  return { string.format('%.0f', offset), epoch, entries }
end

-- push_history_remove <key> -> 1 if there was one. The position stays.
local function push_history_remove(keys)
  local base = prefix(keys[1])
  return misplaced(base .. ':meta', base .. ':stream') or redis.call('DEL', base .. ':stream')
end

-- The user of a client's value.
local function user_of(value)
  local length, from = string.match(value, '^(%d+):()')
  return string.sub(value, from, from + tonumber(length) - 1)
end

local function count_user(base, user, n)
  local users = base .. ':users'
  if redis.call('HINCRBY', users, user, n) <= 0 then
    redis.call('HDEL', users, user)
  end
end

-- The clients of nodes that are gone, at most so many in one step: a server answers nobody else meanwhile.
local TAKEN_OUT_AT_ONCE = 1000

-- Takes out clients of nodes that are gone. Answers 1 if there are more.
local function take_out(base, seconds)
  local nodes, left = base .. ':nodes', TAKEN_OUT_AT_ONCE
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', seconds)) do
    if left <= 0 then
      return 1
    end
    local hash = base .. ':node:' .. node
    local found = redis.call('HRANDFIELD', hash, left, 'WITHVALUES')
    for i = 1, #found, 2 do
      count_user(base, user_of(found[i + 1]), -1)
      redis.call('HDEL', hash, found[i])
    end
    left = left - #found / 2
    if redis.call('EXISTS', hash) == 0 then
      redis.call('ZREM', nodes, node)
    end
  end
  return redis.call('ZCOUNT', nodes, '-inf', seconds) > 0 and 1 or 0
end

-- The hashes of nodes that live, and the number of clients in them.
local function living(base, seconds)
  local hashes, clients = {}, 0
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', base .. ':nodes', '(' .. seconds, '+inf')) do
    local hash = base .. ':node:' .. node
    hashes[#hashes + 1] = hash
    clients = clients + redis.call('HLEN', hash)
  end
  return hashes, clients
end

-- An error while the channel's slot moves: who is in a channel lies in several keys, not all of which are known by name.
local function presence_misplaced(base)
  return misplaced(base .. ':nodes', base .. ':users', base .. ':moves')
end

-- push_presence_update <key> <node> <ttl> [change ...] -> the node's clients in the channel, 1 if clients of nodes that are gone
-- are left to be taken out.
--
-- The node is believed to live for ttl seconds more. Changes: `+ <client> <value>`, `- <client>`, and `!` for "all of mine are
-- gone". Without changes it says that the node still lives.
local function push_presence_update(keys, args)
  local ttl, wrong = number(args[2], 'ttl', 1)
  if #keys ~= 1 or not ttl then
    return fail(wrong or 'push_presence_update takes one key (push:<channel>), a node, a ttl and changes')
  end
  local base, node = prefix(keys[1]), args[1]
  local moves = presence_misplaced(base)
  if moves then
    return moves
  end
  local seconds, micros = now()
  local nodes, own = base .. ':nodes', base .. ':node:' .. node
  local i = 3
  while i <= #args do
    local what, client, value = args[i], args[i + 1], args[i + 2]
    if what == '!' then
      -- In one step whatever their number: they become those of a node that is gone.
      if redis.call('EXISTS', own) == 1 then
        local gone = string.format('%s~%x-%x', node, seconds, micros)
        redis.call('RENAME', own, base .. ':node:' .. gone)
        redis.call('ZADD', nodes, 0, gone)
      end
      i = i + 1
    else
      local before = redis.call('HGET', own, client)
      if before then
        count_user(base, user_of(before), -1)
      end
      if what == '+' then
        redis.call('HSET', own, client, value)
        count_user(base, user_of(value), 1)
        i = i + 3
      else
        redis.call('HDEL', own, client)
        i = i + 2
      end
    end
  end
  local clients = redis.call('HLEN', own)
  if clients > 0 then
    redis.call('ZADD', nodes, seconds + ttl, node)
    -- Much later than a node is given up: until then somebody takes its clients out, and the users with them.
    for _, key in ipairs({ nodes, own, base .. ':users' }) do
      redis.call('EXPIRE', key, ttl * 10)
    end
  else
    redis.call('ZREM', nodes, node)
  end
  return { clients, take_out(base, seconds) }
end

-- Where a channel's presence lies, the hashes of nodes that live, and the number of clients in them; an error in the place of all.
local function attendance(key)
  local base, seconds = prefix(key), now()
  local moves = presence_misplaced(base)
  if moves then
    return nil, moves
  end
  take_out(base, seconds)
  return base, living(base, seconds)
end

-- push_presence <key> <limit> -> the number of clients, { client, value ... }, which is empty where there are more than limit.
local function push_presence(keys, args)
  local limit, wrong = number(args[1], 'limit', 0)
  if #keys ~= 1 or not limit then
    return fail(wrong or 'push_presence takes one key (push:<channel>) and a limit')
  end
  local base, found, clients = attendance(keys[1])
  if not base then
    return found
  end
  local entries = {}
  if clients <= limit then
    for _, hash in ipairs(found) do
      for _, word in ipairs(redis.call('HGETALL', hash)) do
        entries[#entries + 1] = word
      end
    end
  end
  return { clients, entries }
end

-- push_presence_stats <key> -> clients, users.
local function push_presence_stats(keys)
  if #keys ~= 1 then
    return fail('push_presence_stats takes one key (push:<channel>)')
  end
  local base, found, clients = attendance(keys[1])
  if not base then
    return found
  end
  -- Users of nodes that are gone count until they are taken out.
  return { clients, math.min(clients, redis.call('HLEN', base .. ':users')) }
end

-- push_version -> the version of this library; a node loads its own over an older one.
local function push_version()
  return 4
end
