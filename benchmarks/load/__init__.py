"""Load generators of `python -m benchmarks`.

| generator | measures | why |
|---|---|---|
| `wrk` | throughput and latency over HTTP | compiled: it leaves the cores to the servers |
| `perf_analyzer` | the same over gRPC, of Triton alone | NVIDIA's own: what Triton is known to reach |
| `connections` | CPU per request, many open connections | `wrk` keeps all of them busy, which measures a queue |

The first two are external programs. The third is a transport of `modelctl.bench.load`, our only loop of callers, which
`modelctl bench` runs over gRPC: it sends prepared tensors of any model, and counts busy cores in the same window.
"""
