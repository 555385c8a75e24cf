-- What transcripts are searched by: passages of them (chunks) with the lexemes of their words, and vectors of their texts.

-- The lexemes of a passage in the language's own dictionary: of its words (weight A) and of what else was heard at its disputed ones
-- (weight D). With one lexeme, without a position, that names dictionary and tenant: so one GIN index finds a tenant's rows without
-- reading others', and a question is asked in each dictionary that the tenant's transcripts use. (btree_gin is not everywhere.)
CREATE FUNCTION chunk_lexemes(tenant_id text, dictionary text, content text, heard text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_to_tsvector(ARRAY['/' || dictionary || '/' || tenant_id])
        || setweight(to_tsvector(dictionary::regconfig, content), 'A')
        || setweight(to_tsvector(dictionary::regconfig, heard), 'D')
$$;

-- A part of a question as the dictionary has it; it finds nothing, and excludes nothing, if it is a stop word.
CREATE FUNCTION term_query(dictionary text, kind text, term text) RETURNS tsquery LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE kind
        WHEN 'phrase' THEN phraseto_tsquery(dictionary::regconfig, term)
        WHEN 'prefix' THEN to_tsquery(dictionary::regconfig, '''' || replace(replace(term, '\', '\\'), '''', '''''') || ''':*')
        ELSE plainto_tsquery(dictionary::regconfig, term)
    END
$$;

CREATE TABLE chunks (
    tenant_id           text NOT NULL,
    job_id              text NOT NULL,
    run                 int NOT NULL,
    -- Its place in the transcript.
    number              int NOT NULL,
    transcript_version  int NOT NULL,
    text                text NOT NULL,
    -- The same as it is searched for, and what else was heard at its disputed words.
    content             text NOT NULL,
    heard               text NOT NULL,
    dictionary          text NOT NULL,
    -- Of the text; names its vectors.
    hash                text NOT NULL,
    start_ms            bigint,
    end_ms              bigint,
    speakers            jsonb NOT NULL,
    recognizers         jsonb NOT NULL,
    utterances          jsonb NOT NULL,
    alternatives        jsonb NOT NULL,
    -- Of the job.
    created_at          timestamptz NOT NULL,
    lexemes             tsvector GENERATED ALWAYS AS (chunk_lexemes(tenant_id, dictionary, content, heard)) STORED,
    PRIMARY KEY (tenant_id, job_id, run, number)
);
CREATE INDEX chunks_by_lexeme ON chunks USING gin (lexemes);
CREATE INDEX chunks_by_hash ON chunks (tenant_id, job_id, run, hash);
CREATE INDEX chunks_by_dictionary ON chunks (tenant_id, dictionary);
CREATE INDEX chunks_by_time ON chunks (tenant_id, created_at);

-- Generations of vectors: one a change of the model. At most one serves; another may be made beside it.
CREATE TABLE embedding_models (
    generation  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model       text NOT NULL,
    dimensions  int NOT NULL,
    state       text NOT NULL CHECK (state IN ('building', 'serving', 'retired')),
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX embedding_models_used ON embedding_models (state) WHERE state <> 'retired';

-- By the hash of the text: what an edit leaves as it was keeps its vector. The column `embedding` needs pgvector.
CREATE TABLE chunk_vectors (
    tenant_id   text NOT NULL,
    job_id      text NOT NULL,
    run         int NOT NULL,
    generation  int NOT NULL,
    hash        text NOT NULL,
    PRIMARY KEY (tenant_id, job_id, run, generation, hash)
);
CREATE INDEX chunk_vectors_of_generation ON chunk_vectors (generation, tenant_id);

-- Runs of which some chunks may have no vector of a generation yet: one row each until all have.
CREATE TABLE embedding_work (
    tenant_id           text NOT NULL,
    job_id              text NOT NULL,
    run                 int NOT NULL,
    generation          int NOT NULL,
    transcript_version  int NOT NULL,
    due_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts            int NOT NULL DEFAULT 0,
    error               text,
    PRIMARY KEY (tenant_id, job_id, run, generation)
);
CREATE INDEX embedding_work_due ON embedding_work (generation, due_at);

-- The column that needs pgvector, as soon as the extension is there. Each start of a worker calls this, so that it may come later.
CREATE FUNCTION use_pgvector() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        RETURN false;
    END IF;
    BEGIN
        CREATE EXTENSION IF NOT EXISTS vector;
        IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'chunk_vectors'::regclass AND attname = 'embedding' AND NOT attisdropped) THEN
            DELETE FROM chunk_vectors;
            ALTER TABLE chunk_vectors ADD COLUMN embedding halfvec NOT NULL;
            -- In the row, where it fits: out of line, each distance would cost a look-up of its own.
            ALTER TABLE chunk_vectors ALTER COLUMN embedding SET STORAGE MAIN;
            INSERT INTO embedding_work (tenant_id, job_id, run, generation, transcript_version)
            SELECT c.tenant_id, c.job_id, c.run, m.generation, max(c.transcript_version)
            FROM chunks c CROSS JOIN embedding_models m WHERE m.state <> 'retired' GROUP BY 1, 2, 3, 4
            ON CONFLICT DO NOTHING;
            PERFORM index_generation(generation) FROM embedding_models WHERE state <> 'retired';
        END IF;
    EXCEPTION WHEN insufficient_privilege OR undefined_object OR feature_not_supported THEN
        RETURN false;  -- an old pgvector without halfvec, or a login that may not create the extension
    END;
    RETURN true;
END
$$;

-- An HNSW index of one generation. With the owner's rights, because workers may make no indexes.
CREATE FUNCTION index_generation(which int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    d int := (SELECT dimensions FROM embedding_models WHERE generation = which);
BEGIN
    -- pgvector indexes at most 4000 dimensions of a halfvec; more are searched without an index.
    EXECUTE format('DROP INDEX IF EXISTS chunk_vectors_g%s', which);
    IF d <= 4000 THEN
        EXECUTE format('CREATE INDEX chunk_vectors_g%s ON chunk_vectors '
                       'USING hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops) WHERE generation = %s', which, d, which);
    END IF;
END
$$;

-- Begin a generation: it serves at once if there is none, else as soon as no work is left for it.
CREATE FUNCTION begin_generation(of_model text, of_dimensions int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    g int;
BEGIN
    LOCK TABLE embedding_models IN SHARE ROW EXCLUSIVE MODE;
    SELECT generation INTO g FROM embedding_models WHERE model = of_model AND state <> 'retired';
    IF g IS NOT NULL THEN
        RETURN g;
    END IF;
    UPDATE embedding_models SET state = 'retired' WHERE state = 'building';
    INSERT INTO embedding_models (model, dimensions, state)
    VALUES (of_model, of_dimensions,
            CASE WHEN EXISTS (SELECT FROM embedding_models WHERE state = 'serving') THEN 'building' ELSE 'serving' END)
    RETURNING generation INTO g;
    PERFORM index_generation(g);
    INSERT INTO embedding_work (tenant_id, job_id, run, generation, transcript_version)
    SELECT tenant_id, job_id, run, g, max(transcript_version) FROM chunks GROUP BY 1, 2, 3;
    RETURN g;
END
$$;

-- Have a complete generation serve, and remove at most so many rows of retired ones; whether there may be more to remove.
CREATE FUNCTION keep_generations(at_most int) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    new_one int := (SELECT generation FROM embedding_models WHERE state = 'building');
    old_one int;
    removed int;
BEGIN
    -- What waits for the new one waits for the old one, too: nothing is lost by the change.
    IF new_one IS NOT NULL AND NOT EXISTS (
        SELECT FROM embedding_work w WHERE w.generation = new_one AND NOT EXISTS (
            SELECT FROM embedding_work o JOIN embedding_models m USING (generation)
            WHERE m.state = 'serving' AND (o.tenant_id, o.job_id, o.run) = (w.tenant_id, w.job_id, w.run))) THEN
        LOCK TABLE embedding_models IN SHARE ROW EXCLUSIVE MODE;
        UPDATE embedding_models SET state = 'retired' WHERE state = 'serving';
        UPDATE embedding_models SET state = 'serving' WHERE generation = new_one;
    END IF;
    SELECT generation INTO old_one FROM embedding_models WHERE state = 'retired' ORDER BY generation LIMIT 1;
    IF old_one IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM embedding_work WHERE generation = old_one;
    EXECUTE format('DROP INDEX IF EXISTS chunk_vectors_g%s', old_one);
    DELETE FROM chunk_vectors WHERE ctid = ANY(ARRAY(SELECT ctid FROM chunk_vectors WHERE generation = old_one LIMIT at_most));
    GET DIAGNOSTICS removed = ROW_COUNT;
    IF removed < at_most THEN
        DELETE FROM embedding_models WHERE generation = old_one;
    END IF;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION use_pgvector, index_generation, begin_generation, keep_generations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION begin_generation, keep_generations TO concord_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON chunks, chunk_vectors, embedding_work, embedding_models TO concord_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON chunks, chunk_vectors, embedding_work TO concord_writer;
GRANT SELECT ON embedding_models TO concord_tenant, concord_writer;
GRANT SELECT ON chunks, embedding_work TO concord_tenant;
ALTER TABLE chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE chunk_vectors ENABLE ROW LEVEL SECURITY;
ALTER TABLE embedding_work ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON chunks TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY worker ON chunk_vectors TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY worker ON embedding_work TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON chunks FOR SELECT TO concord_tenant USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY tenant ON embedding_work FOR SELECT TO concord_tenant USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON chunks TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON chunk_vectors TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON embedding_work TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));

SELECT use_pgvector();
