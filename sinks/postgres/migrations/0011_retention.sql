-- The oldest rows are found by an index that stays right: once vacuum has made room among old rows, new ones lie between them, and
-- a block range index then reads six rows for each that it finds. In the order of time a B-tree is small (3 MB for 500,000 rows)
-- and costs an insert nothing that could be measured.
DROP INDEX inbox_by_age;
CREATE INDEX inbox_by_age ON inbox (at);
DROP INDEX adjudications_by_age;
CREATE INDEX adjudications_by_age ON adjudications (at);
