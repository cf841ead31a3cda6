-- After how long a client of MQTT 3.1 or 3.1.1 gets again what it has not answered; 0 for never.

ALTER TABLE clusters
    ADD COLUMN resend_after_secs integer NOT NULL DEFAULT 120 CHECK (resend_after_secs BETWEEN 0 AND 86400);
