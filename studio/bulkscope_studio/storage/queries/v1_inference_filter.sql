-- Which inferences: a condition of v1_models.sql, v1_inferences.sql and v1_model_points.sql. A filter is off when NULL; those
-- that ended from $from_ns to $to_ns and began from $first_ns to $last_ns.
rules.is_inference(kind, model) AND end_ns BETWEEN $from_ns AND $to_ns AND start_ns BETWEEN $first_ns AND $last_ns
  AND ($bulk IS NULL OR bulk_id = $bulk) AND ($host IS NULL OR host_name = $host) AND ($model IS NULL OR model = $model)
