-- What a cluster sets of its rates over its plan: an object of numbers, each per second unless its name says
-- otherwise. What is not in it is the plan's.
ALTER TABLE clusters ADD COLUMN quota_rates jsonb NOT NULL DEFAULT '{}';
