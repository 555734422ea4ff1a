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

-- push_version -> the version of this library; a node loads its own over an older one.
local function push_version()
  return 3
end
