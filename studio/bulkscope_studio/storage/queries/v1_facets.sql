-- What bulks of a time can be filtered by, with how many bulks each: of each kind the $most that most bulks have. Reads `listed`
-- of summaries.py.
SELECT kind, name, count(*) AS bulks, count(*) OVER (PARTITION BY kind) AS total
FROM (
    SELECT kind, unnest(names) AS name
    FROM (
        SELECT unnest([{'kind': 'services', 'names': services}, {'kind': 'hosts', 'names': hosts},
                       {'kind': 'models', 'names': models}, {'kind': 'workers', 'names': workers}], recursive := true)
        FROM listed
        WHERE ($since_ns IS NULL OR end_ns >= $since_ns) AND ($until_ns IS NULL OR start_ns <= $until_ns)
    )
)
GROUP BY kind, name
QUALIFY row_number() OVER (PARTITION BY kind ORDER BY bulks DESC, name) <= $most
ORDER BY kind, bulks DESC, name
