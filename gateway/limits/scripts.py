"""The scripts that Redis runs whole, so that no two calls see the same room. Redis's own clock counts.

Keys of one limit, `K` its name: a rate is the string `K` (the instant, µs, at which its bucket is full again); slots
are the sorted set `K` (event id by the end of its lease, s). A period of a budget is the hash `K` (`base`: what the
ledger said, `usum`: settled since, `hsum`: held, `ver`: how often it was recounted), the hash `K:u` (nano-USD by
event id, settled and not yet counted in `base`), the hash `K:h` (nano-USD held by event id; `kept:` before the id of a
call that has ended) and the sorted set `K:e` (the same names by the end of their hold). Amounts are nano-USD and exact
below 2^53; HINCRBY takes no `-0`.
"""

from typing import Final

# ARGV: event id, then seven fields per claim: kind, key, limit, amount, period µs | lease s, ttl s, 1 where it may
# refuse. Returns five numbers per claim: refused, used, more, wait ms (limits/claims.Taken), known (0: a budget without
# its base). Nothing is taken unless everything is.
RESERVE: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local id, out, ok = ARGV[1], {}, true
local plans = {}
for i = 2, #ARGV, 7 do
  local kind, key, limit, amount = ARGV[i], ARGV[i+1], tonumber(ARGV[i+2]), tonumber(ARGV[i+3])
  local span, ttl, hard = tonumber(ARGV[i+4]), ARGV[i+5], ARGV[i+6] == '1'
  local refused, used, more, wait, known = 0, 0, 0, 0, 1
  if kind == 'rate' then
    local each = span / limit
    local tat = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local new = tat + amount * each
    local over = new - span - now
    if over > 0.5 then
      refused = 1
      wait = amount > limit and -1 or math.ceil(over / 1000)
      new = tat
    end
    used = math.max(0, math.floor((span - (new - now)) / each + 0.000001))
    more = math.ceil((new - now) / 1000)
    plans[#plans+1] = {'SET', key, string.format('%.0f', new), 'PX', string.format('%.0f', more + 1)}
  elseif kind == 'slots' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', t[1])
    used = redis.call('ZCARD', key)
    if used >= limit then refused = 1 else used = used + 1 end
    plans[#plans+1] = {'ZADD', key, t[1] + span, id}
    plans[#plans+1] = {'EXPIRE', key, span}
  else
    for _, gone in ipairs(redis.call('ZRANGEBYSCORE', key .. ':e', '-inf', t[1], 'LIMIT', 0, 100)) do
      local was = redis.call('HGET', key .. ':h', gone)
      if was and was ~= '0' then redis.call('HINCRBY', key, 'hsum', '-' .. was) end
      redis.call('HDEL', key .. ':h', gone)
      redis.call('ZREM', key .. ':e', gone)
    end
    local sums = redis.call('HMGET', key, 'base', 'usum', 'hsum')
    if not sums[1] then known = 0 end
    used = (sums[1] or 0) + (sums[2] or 0)
    more = tonumber(sums[3] or '0')
    if hard and (known == 0 or used + more + amount > limit) then refused = 1 else more = more + amount end
    plans[#plans+1] = {'HSET', key .. ':h', id, ARGV[i+3]}
    plans[#plans+1] = {'ZADD', key .. ':e', t[1] + span, id}
    plans[#plans+1] = {'HINCRBY', key, 'hsum', ARGV[i+3]}
    for _, part in ipairs({'', ':u', ':h', ':e'}) do plans[#plans+1] = {'EXPIRE', key .. part, ttl} end
    if known == 0 then ok = false end
  end
  if refused == 1 then ok = false end
  for _, figure in ipairs({refused, used, more, wait, known}) do out[#out+1] = string.format('%.0f', figure) end
end
if ok then for _, plan in ipairs(plans) do redis.call(unpack(plan)) end end
return out
"""

# ARGV: event id, then five fields per claim: kind, key, amount (rate: tokens to give back, which may be below 0; hold:
# nano-USD that the call has cost), limit | nano-USD that stay held for a day, period µs | ttl s. Idempotent.
SETTLE: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local id = ARGV[1]
for i = 2, #ARGV, 5 do
  local kind, key, amount = ARGV[i], ARGV[i+1], tonumber(ARGV[i+2])
  if kind == 'rate' then
    local tat = tonumber(redis.call('GET', key) or '0')
    local new = math.max(tat, now) - amount * tonumber(ARGV[i+4]) / tonumber(ARGV[i+3])
    if new > now then
      redis.call('SET', key, string.format('%.0f', new), 'PX', string.format('%.0f', math.ceil((new - now) / 1000) + 1))
    else
      redis.call('DEL', key)
    end
  elseif kind == 'slots' then
    redis.call('ZREM', key, id)
  else
    local was = redis.call('HGET', key .. ':h', id)
    if was then
      if was ~= '0' then redis.call('HINCRBY', key, 'hsum', '-' .. was) end
      redis.call('HDEL', key .. ':h', id)
      redis.call('ZREM', key .. ':e', id)
    end
    if amount ~= 0 then
      local before = redis.call('HGET', key .. ':u', id) or '0'
      redis.call('HSET', key .. ':u', id, ARGV[i+2])
      redis.call('HINCRBY', key, 'usum', string.format('%.0f', amount - tonumber(before)))
    end
    local parts, kept = {'', ':u'}, ARGV[i+3]
    if kept ~= '0' then
      parts = {'', ':u', ':h', ':e'}
      if redis.call('HSETNX', key .. ':h', 'kept:' .. id, kept) == 1 then
        redis.call('HINCRBY', key, 'hsum', kept)
        redis.call('ZADD', key .. ':e', t[1] + 86400, 'kept:' .. id)
      end
    end
    for _, part in ipairs(parts) do redis.call('EXPIRE', key .. part, ARGV[i+4]) end
  end
end
return 1
"""

# ARGV: event id, then two fields per claim that has a lease: its key, seconds. One that is gone is not taken again.
RENEW: Final = """
local t = redis.call('TIME')
for i = 2, #ARGV, 2 do
  redis.call('ZADD', ARGV[i], 'XX', t[1] + ARGV[i+1], ARGV[1])
  redis.call('EXPIRE', ARGV[i], ARGV[i+1])
end
return 1
"""

# ARGV: the name of the hash of all periods, key, the period's descriptor, the ledger's sum, ttl s. A sum that is there
# already stays.
BEGIN: Final = """
redis.call('HSET', ARGV[1], ARGV[2], ARGV[3])
redis.call('HSETNX', ARGV[2], 'base', ARGV[4])
redis.call('EXPIRE', ARGV[2], ARGV[5])
return 1
"""

# ARGV: key, the version that was read, the ledger's sum or '' where more pieces follow, what `base` is where there is
# none or '', ttl s, then event ids that this sum contains. What they have cost or hold moves into `base`, so that the
# counter says the same after each piece; the last one makes `base` the ledger's sum. Returns 0 when another was faster.
RECOUNT: Final = """
local key = ARGV[1]
if (redis.call('HGET', key, 'ver') or '0') ~= ARGV[2] then return 0 end
if ARGV[4] ~= '' then redis.call('HSETNX', key, 'base', ARGV[4]) end
local settled, held = 0, 0
if #ARGV > 5 then
  for _, cost in ipairs(redis.call('HMGET', key .. ':u', unpack(ARGV, 6))) do settled = settled + (cost or 0) end
  for _, hold in ipairs(redis.call('HMGET', key .. ':h', unpack(ARGV, 6))) do held = held + (hold or 0) end
  redis.call('HDEL', key .. ':u', unpack(ARGV, 6))
  redis.call('HDEL', key .. ':h', unpack(ARGV, 6))
  redis.call('ZREM', key .. ':e', unpack(ARGV, 6))
end
for name, moved in pairs({usum = -settled, hsum = -held, base = settled + held}) do
  if moved ~= 0 then redis.call('HINCRBY', key, name, string.format('%.0f', moved)) end
end
if ARGV[3] ~= '' then redis.call('HSET', key, 'base', ARGV[3]) end
redis.call('HINCRBY', key, 'ver', 1)
redis.call('EXPIRE', key, ARGV[5])
return 1
"""
