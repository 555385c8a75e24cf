-- One word for one thing. Workers of earlier versions, whose statements name the old column, wait until they are replaced.

ALTER TABLE adjudications RENAME COLUMN judge TO adjudicator;
