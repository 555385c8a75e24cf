-- The search index. What matches is found as concord_worker, with the tenant as a condition of every statement: under row-level
-- security no index finds a lexeme, because the operators are not leakproof (measured: 400 rows read in place of 4). Passages are
-- read as concord_tenant, so that keys of another tenant, should a statement here ever return any, show nothing.

-- name: erase_chunks
DELETE FROM chunks WHERE tenant_id = $1 AND job_id = $2 AND run <= $3;

-- name: insert_chunks
{chunks.insert};

-- name: erase_stale_vectors
-- Of earlier runs, and of texts that this run's transcript has not any more.
DELETE FROM chunk_vectors v WHERE tenant_id = $1 AND job_id = $2 AND run <= $3 AND NOT EXISTS (
    SELECT FROM chunks c WHERE (c.tenant_id, c.job_id, c.run, c.hash) = (v.tenant_id, v.job_id, v.run, v.hash));

-- name: erase_earlier_work
DELETE FROM embedding_work WHERE tenant_id = $1 AND job_id = $2 AND run < $3;

-- name: queue_embedding
-- A higher number of attempts ends a claim that holds at the moment.
INSERT INTO embedding_work AS w (tenant_id, job_id, run, generation, transcript_version)
SELECT $1, $2, $3, generation, $4 FROM embedding_models WHERE state <> 'retired'
ON CONFLICT (tenant_id, job_id, run, generation) DO UPDATE
SET transcript_version = excluded.transcript_version, due_at = excluded.due_at, attempts = w.attempts + 1, error = NULL;

-- name: vectors_possible
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'chunk_vectors'::regclass AND attname = 'embedding' AND NOT attisdropped);

-- name: read_generations
SELECT generation, model, dimensions, state FROM embedding_models WHERE state <> 'retired' ORDER BY generation;

-- name: begin_generation
SELECT begin_generation($1, $2);

-- name: keep_generations
SELECT keep_generations($1);

-- name: claim_embedding_work
UPDATE embedding_work SET due_at = clock_timestamp() + $3::float8 * interval '1 second', attempts = attempts + 1
WHERE (tenant_id, job_id, run, generation) IN (
    SELECT tenant_id, job_id, run, generation FROM embedding_work
    WHERE generation = $1 AND due_at <= clock_timestamp() ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING tenant_id, job_id, run, generation, transcript_version, attempts, error;

-- name: texts_without_vector
SELECT hash, min(text) AS text FROM chunks c
WHERE tenant_id = $1 AND job_id = $2 AND run = $3 AND NOT EXISTS (
    SELECT FROM chunk_vectors v
    WHERE (v.tenant_id, v.job_id, v.run, v.generation, v.hash) = (c.tenant_id, c.job_id, c.run, $4, c.hash))
GROUP BY hash ORDER BY min(number) LIMIT $5;

-- name: insert_vectors
INSERT INTO chunk_vectors (tenant_id, job_id, run, generation, hash, embedding)
SELECT $1, $2, $3, $4, hash, vector::halfvec FROM unnest($5::text[], $6::text[]) AS v (hash, vector)
WHERE EXISTS (SELECT FROM chunks c WHERE (c.tenant_id, c.job_id, c.run, c.hash) = ($1, $2, $3, v.hash))
ON CONFLICT DO NOTHING;

-- name: renew_embedding_claim
UPDATE embedding_work SET due_at = clock_timestamp() + $6::float8 * interval '1 second', error = NULL
WHERE (tenant_id, job_id, run, generation, attempts) = ($1, $2, $3, $4, $5) RETURNING attempts;

-- name: put_off_embedding
UPDATE embedding_work SET due_at = clock_timestamp() + $6::float8 * interval '1 second', error = $7
WHERE (tenant_id, job_id, run, generation, attempts) = ($1, $2, $3, $4, $5);

-- name: end_embedding_work
DELETE FROM embedding_work WHERE (tenant_id, job_id, run, generation, attempts) = ($1, $2, $3, $4, $5);

-- name: count_embedding_work
SELECT count(*) FROM (SELECT FROM embedding_work WHERE tenant_id = $1 AND generation = $2 LIMIT 1000) AS waiting;

-- name: term_queries
-- Each term in each dictionary that the tenant's transcripts use, from one to the next by the index. The beginning of a word also as
-- it is written: a dictionary takes `bicy` for a word and makes `bici` of it, and drops `the` of `theatre`.
WITH RECURSIVE used AS (
    (SELECT dictionary FROM chunks WHERE tenant_id = $1 ORDER BY dictionary LIMIT 1)
    UNION ALL
    SELECT (SELECT c.dictionary FROM chunks c WHERE c.tenant_id = $1 AND c.dictionary > used.dictionary ORDER BY c.dictionary LIMIT 1)
    FROM used WHERE used.dictionary IS NOT NULL
)
SELECT dictionary, n::int AS n, 
    (CASE kind WHEN 'prefix' THEN term_query('simple', kind, term) ELSE '' END || term_query(dictionary, kind, term))::text AS query
FROM used CROSS JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS t (kind, term, n)
WHERE dictionary IS NOT NULL ORDER BY dictionary, n;

-- name: read_chunks
SELECT {chunks.columns as c} FROM unnest($1::text[], $2::int[], $3::int[]) AS k (job_id, run, number)
JOIN chunks c USING (job_id, run, number) WHERE c.tenant_id = $4;

-- name: mark_terms
SELECT ts_headline(dictionary::regconfig, content, query::tsquery, E'StartSel=\x02, StopSel=\x03, HighlightAll=true') AS marked
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS t (dictionary, content, query, n) ORDER BY n;
