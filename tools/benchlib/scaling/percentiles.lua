-- wrk: what `tools/bench scaling` reads, as numbers and not rounded for people.
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("percentiles_us: %d %d %d\n", latency:percentile(50),
        latency:percentile(99), latency:percentile(99.9)))
    io.write(string.format("answered: %d in %d us\n", summary.requests, summary.duration))
    io.write(string.format("errors: %d\n", errors.connect + errors.read + errors.write +
        errors.status + errors.timeout))
end
