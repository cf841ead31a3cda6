-- What a cluster sets over its plan of its shared groups and of its part of the message log; null leaves the plan's
-- value.

ALTER TABLE clusters
    ADD COLUMN quota_shared_groups bigint,
    ADD COLUMN quota_filters_per_shared_group bigint,
    ADD COLUMN quota_members_per_shared_group bigint,
    ADD COLUMN quota_log_mib bigint;
