-- What was refused, truncated or expired so far.
SELECT signal, transport, outcome, reason, sum(records)::BIGINT AS records FROM ingest GROUP BY ALL ORDER BY records DESC LIMIT 50
