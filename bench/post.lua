-- For wrk: sends the body in a file, named after "--", again and again; the last line that is printed
-- is what came of it, as JSON. Times are in microseconds.

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  file:close()
end

function done(summary, latency, requests)
  local failed = summary.errors
  print(string.format(
    '{"requests":%d,"duration":%d,"p50":%d,"p95":%d,"p99":%d,"errors":%d}',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
