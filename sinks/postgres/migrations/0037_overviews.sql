-- A schedule of the kind `overview` mails one report on all calls that its filter finds, to these addresses.
ALTER TABLE schedules ADD COLUMN mail_to jsonb NOT NULL DEFAULT '[]';
