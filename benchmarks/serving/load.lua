-- wrk asks every body of a file in turn. Told its path in BODIES and the URL's path in ASKED.
local requests, at = {}, 0

local function number(file)
  local a, b, c, d = file:read(4):byte(1, 4)
  return a + b * 256 + c * 65536 + d * 16777216
end

function init()
  local file = io.open(os.getenv("BODIES"), "rb")
  while file:read(0) do
    local size, header = number(file), number(file)
    local headers = { ["content-type"] = "application/json" }
    if header > 0 then
      headers["content-type"] = "application/octet-stream"
      headers["inference-header-content-length"] = tostring(header)
    end
    requests[#requests + 1] = wrk.format("POST", os.getenv("ASKED"), headers, file:read(size))
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "seconds": %f, "bad": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
