-- What the page of models shows of each inference (analysis/report/figures.py computes); of very many a sample.
SELECT model, seconds, ok, output_tokens, decode, cpu_time, cpu_exact, memory_peak, memory_exact
FROM inferences /*sample*/
