-- What the vault keeps: sealed records under keyed hashes, and which of them
-- changed when, so that other hosts drop what they remember of them.

CREATE TABLE countersign_row (
    key        bytea  PRIMARY KEY,
    -- An unsigned number, bit by bit; only ever compared for equality.
    revision   bigint NOT NULL,
    -- Milliseconds since the epoch; null never expires.
    expires_at bigint,
    body       bytea  NOT NULL
);

-- Already sealed: compressing it again costs time and saves nothing.
ALTER TABLE countersign_row ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE INDEX countersign_row_expires_at ON countersign_row (expires_at)
    WHERE expires_at IS NOT NULL;

-- By kind, which is the first byte of a key.
CREATE INDEX countersign_row_kind_expires_at
    ON countersign_row (substring(key FROM 1 FOR 1), expires_at)
    WHERE expires_at IS NOT NULL;

-- One row. Whoever writes locks it first: batches happen one after the other.
CREATE TABLE countersign_clock (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Counts batches, without gaps.
    change bigint  NOT NULL,
    -- Random; names the batch that was counted last.
    batch  bytea   NOT NULL
);

INSERT INTO countersign_clock (change, batch)
    VALUES (0, '\x00000000000000000000000000000000');

-- The latest batches.
CREATE TABLE countersign_change (
    change  bigint      PRIMARY KEY,
    batch   bytea       NOT NULL,
    -- Who wrote it: random, new at every start.
    host    bytea       NOT NULL,
    keys    bytea[]     NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
