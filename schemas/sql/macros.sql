-- Words that several views share. Numbers that the program shares with them are macros too: see schemas/thresholds.py.

-- The same picture, saved again or in another size, by the differing bits of two perceptual hashes.
CREATE OR REPLACE MACRO near_identical(hash_distance) AS hash_distance <= near_identical_bits();

-- Photos of a species among whose pairs its reference pairs are sought: the fewest, n, with n (n - 1) / 2 pairs enough.
CREATE OR REPLACE MACRO reference_photos(wanted) AS
    CAST(ceil(0.5 + sqrt(0.25 + 2.0 * pairs_per_reference() * wanted)) AS BIGINT);

-- Whether two photos may show one side of an animal: an unknown side fits all.
CREATE OR REPLACE MACRO one_side(viewpoint_a, viewpoint_b) AS coalesce(viewpoint_a = viewpoint_b, true);

-- Inliers count only when their homography was accepted.
CREATE OR REPLACE MACRO accepted_inliers(n_inliers, no_homography_reason) AS
    CASE WHEN no_homography_reason IS NULL THEN coalesce(n_inliers, 0) ELSE 0 END;

-- Where a value lies between the typical one of two names (0) and that of one name (1). The upper end is at least what one
-- in ten pairs of two names exceeds, so that a small gap does not inflate noise. When pairs of one name are no higher than
-- pairs of two names, the value tells nothing: null.
CREATE OR REPLACE MACRO standing(value, low, high_low, high) AS
    CASE WHEN high > low THEN greatest(0, least(1, (value - low) / (greatest(high, high_low) - low))) END;

-- What a suspicion asks, the same whatever its rank: of a photo, of names in order, or of two photos. Older rows do not say of
-- what, so their kind must.
CREATE OR REPLACE MACRO question_of(kind, subject_kind, blamed_photo, photo_a, photo_b, identity_a, identity_b) AS CASE
    WHEN blamed_photo IS NOT NULL THEN [kind, blamed_photo]
    WHEN coalesce(subject_kind = 'name', kind IN ('two_names_one_animal', 'one_name_two_animals'))
        THEN [kind, least(identity_a, identity_b), greatest(identity_a, identity_b)]
    ELSE [kind, photo_a, photo_b]
END;
-- What a verdict is about: pair id, photo id or name; of two names the first by the alphabet.
CREATE OR REPLACE MACRO review_subject(kind, pair_id, photo_a, identity_a, identity_b) AS
    CASE kind
        WHEN 'name' THEN photo_a
        WHEN 'photo' THEN photo_a
        WHEN 'names' THEN least(identity_a, identity_b)
        WHEN 'split' THEN identity_a
        ELSE pair_id
    END;

-- The second of two names that a verdict is about.
CREATE OR REPLACE MACRO review_other(kind, identity_a, identity_b) AS if(kind = 'names', greatest(identity_a, identity_b), NULL);

-- A text that tells a question from all others. A question about pictures is a kind with the chips shown; that of a photo's name
-- is about that name, too. A question about names is about these, whichever photos stood for them. No name holds chr(31).
CREATE OR REPLACE MACRO review_question(kind, pair_id, photo_a, chip_a, identity_a, identity_b) AS concat_ws(
    chr(31),
    kind,
    review_subject(kind, pair_id, photo_a, identity_a, identity_b),
    review_other(kind, identity_a, identity_b),
    if(kind IN ('name', 'photo'), chip_a, NULL),
    if(kind = 'name', identity_a, NULL)
);
