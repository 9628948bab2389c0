-- Sends the octets of the file BENCH_REQUEST as they are (one request, or several to be pipelined), and prints what
-- was counted as one line. wrk.format rather than request(): wrk then asks Lua once, not for every request.
local file = assert(io.open(os.getenv("BENCH_REQUEST"), "rb"))
local octets = file:read("*a")
file:close()

wrk.format = function()
   return octets
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      "counted requests=%d microseconds=%d p50=%d p99=%d connect=%d read=%d write=%d status=%d timeout=%d\n",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout
   ))
end
