-- What was used up in a time is added up without reading what was before. Rows come in the order of time.
CREATE INDEX usage_by_time ON usage USING brin (at);
