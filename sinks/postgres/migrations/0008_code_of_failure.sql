-- Why a job failed, for programs. Jobs that failed earlier have none.
ALTER TABLE jobs ADD COLUMN code text;
