-- What the page of models shows of each inference (analysis/report/figures.py computes); of very many a sample.
SELECT model, (end_ns - start_ns) / 1e9 AS seconds, status IS DISTINCT FROM 'ERROR' AS ok, output_tokens, decode,
       cpu_time, cpu_exact, memory_peak, memory_exact
FROM spans /*sample*/ WHERE rules.is_inference(kind, model)
