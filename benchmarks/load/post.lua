-- wrk -s post.lua URL -- [BODY_FILE ["Name: value" ...]]
-- Posts the file with these headers, or gets without one, and prints one line of JSON at the end.

function init(words)
  if words[1] then
    local file = assert(io.open(words[1], "rb"))
    wrk.method, wrk.body = "POST", file:read("*a")
    file:close()
  end
  for index = 2, #words do
    local name, value = words[index]:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"seconds": %.6f, "requests": %d, "p50_ms": %.3f, "p99_ms": %.3f, "status": %d, "sockets": %d}\n',
    summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
