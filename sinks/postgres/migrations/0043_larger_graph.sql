-- The index of vectors is built with 128 candidates a vector instead of pgvector's 64. Indexes that are there get new vectors so, and are
-- built anew by `REINDEX INDEX CONCURRENTLY chunk_vectors_gN`.
CREATE OR REPLACE FUNCTION index_generation(which int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    d int := (SELECT dimensions FROM embedding_models WHERE generation = which);
BEGIN
    -- pgvector indexes at most 4000 dimensions of a halfvec; more are searched without an index.
    EXECUTE format('DROP INDEX IF EXISTS chunk_vectors_g%s', which);
    IF d <= 4000 THEN
        EXECUTE format('CREATE INDEX chunk_vectors_g%s ON chunk_vectors '
                       'USING hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops) WITH (ef_construction = 128) WHERE generation = %s',
                       which, d, which);
    END IF;
END
$$;

DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN SELECT c.oid FROM pg_class c JOIN pg_am a ON a.oid = c.relam
                WHERE a.amname = 'hnsw' AND c.relname LIKE 'chunk\_vectors\_g%' LOOP
        EXECUTE format('ALTER INDEX %s SET (ef_construction = 128)', name);
    END LOOP;
END
$$;
