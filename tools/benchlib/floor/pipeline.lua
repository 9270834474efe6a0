-- wrk: 16 requests in one write. wrk counts each answer it parses, so its total is of answers.
--
-- The percentiles that wrk prints are wrong here: it adds samples for requests that a late answer
-- kept from being sent, with an interval that takes each pipelined answer for a batch of its own.
-- done() takes those samples out again, the longest latency first, as each of them gave its share
-- only to shorter ones, and prints the 99th percentile of a batch from what is left.

init = function(args)
    local batch = {}
    for i = 1, 16 do
        batch[i] = wrk.format("GET", "/plaintext")
    end
    batch = table.concat(batch)
    request = function()
        return batch
    end
end

done = function(summary, latency, requests)
    local connections = tonumber(os.getenv("SHOAL_BENCH_CONNECTIONS"))
    local times, counts = {}, {}
    for i = 1, #latency do
        local time_us, count = latency(i)
        times[i], counts[time_us] = time_us, count
    end
    local expected_us = math.floor(summary.duration / math.floor(summary.requests / connections))
    local total = 0
    for i = #times, 1, -1 do
        local time_us = times[i]
        local count = counts[time_us]
        if count > 0 then
            total = total + count
            local shorter_us = time_us - expected_us
            while time_us >= 2 * expected_us and shorter_us > expected_us do
                if counts[shorter_us] then
                    counts[shorter_us] = counts[shorter_us] - count
                end
                shorter_us = shorter_us - expected_us
            end
        end
    end
    local above, p99_us = 0, 0
    for i = #times, 1, -1 do
        above = above + math.max(counts[times[i]], 0)
        if above >= total / 100 then
            p99_us = times[i]
            break
        end
    end
    io.write(string.format("batch p99: %dus\n", p99_us))
end
