use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

fn parse(query_string: &str) -> Result<SearchQuery, QueryError> {
    SearchQuery::parse_index(query_string, &Limits::default())
}

fn canonical(query_string: &str) -> String {
    parse(query_string).expect(query_string).canonical()
}

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn equal_queries_have_one_spelling() {
    for (query_string, expected) in [
        ("", ""),
        ("unknown=1&Tag=x&label=y&os:matches=*", ""),
        ("tag=b&tag=a&tag=b&os=linux", "os=linux&tag=a&tag=b"),
        ("%74ag=%61&&", "tag=a"),
        ("tag=no+tag&tag=a", "tag=a"),
        ("tag=no+tag", "tag="),
        ("tag", "tag="),
        ("repository=UPPER", "repository="),
        ("digest=", "digest="),
        ("os=&os=linux", "os=&os=linux"),
        ("architecture=", "architecture="),
        ("artifact_type=a/b", "artifact_type=a%2Fb"),
        ("tag:matches=a**b&tag:matches=a*b", "tag%3Amatches=a*b"),
        ("repository:matches=*?", "repository%3Amatches=%3F*"),
        ("label:=v", "label%3A=v"),
        (
            "label:a=v&label:a:exists=1&label:a:matches=v",
            "label%3Aa=v&label%3Aa%3Aexists=1&label%3Aa%3Amatches=v",
        ),
        ("label:a:exists:exists=1", "label%3Aa%3Aexists%3Aexists=1"),
        ("annotation:a:matches=", "annotation%3Aa%3Amatches="),
        ("label:%F0%9F%A6%80=%26", "label%3A%F0%9F%A6%80=%26"),
        ("as_of=001.02", "as_of=1.2"),
        ("as_of=1.2&as_of=01.2", "as_of=1.2"),
        ("as_of=2026-01-01T00:00:00Z", "as_of=2026-01-01T00%3A00%3A00Z"),
        ("as_of=2026-01-01t02:00:00.0%2B02:00", "as_of=2026-01-01T00%3A00%3A00Z"),
        ("as_of=2026-01-01T02:00:00+02:00", "as_of=2026-01-01T00%3A00%3A00Z"),
        (
            "as_of=2026-01-01T00:00:00.1234569Z",
            "as_of=2026-01-01T00%3A00%3A00.123456Z",
        ),
        ("as_of=2016-12-31T23:59:60Z", "as_of=2017-01-01T00%3A00%3A00Z"),
    ] {
        assert_eq!(canonical(query_string), expected, "{query_string}");
    }
    assert_eq!(
        canonical(&format!("digest={DIGEST}&digest=")),
        format!("digest={}", DIGEST.replace(':', "%3A"))
    );
}

#[test]
fn different_questions_are_not_equal() {
    let questions = [
        "",
        "os=",
        "os=linux",
        "architecture=linux",
        "tag=",
        "repository=",
        "digest=",
        "label:os=linux",
        "annotation:os=linux",
        "label:os=",
        "label:os:matches=linux",
        "label:os:exists=1",
        "tag=linux",
        "tag:matches=linux",
        "repository=linux",
        "repository:matches=linux",
        "as_of=1.1",
        "as_of=1.2",
    ];
    for (index, one) in questions.iter().enumerate() {
        for other in &questions[index + 1..] {
            assert_ne!(parse(one), parse(other), "{one} {other}");
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    for (query_string, message) in [
        ("tag=%", "'tag': '%' is not followed by two hex digits"),
        ("unknown=%zz", "'unknown': '%' is not followed by two hex digits"),
        ("unknown=%00", "'unknown': contains U+0000"),
        ("a%00b", r"'a\0b': contains U+0000"),
        ("tag=\0", "'tag': contains U+0000"),
        ("label:a=%ff", "'label:a': not UTF-8 after decoding"),
        ("label:a:exists=0", "'label:a:exists' takes only 1, not '0'"),
        ("label:a:exists", "'label:a:exists' takes only 1, not ''"),
        (
            "annotation:a:exists=1&annotation:a:exists=+1",
            "'annotation:a:exists' takes only 1, not ' 1'",
        ),
        (
            "digest=latest",
            "'digest': 'latest' is no digest: a digest is written <algorithm>:<hex>, and this has no colon",
        ),
        (
            "digest=%0A",
            r"'digest': '\n' is no digest: a digest is written <algorithm>:<hex>, and this has no colon",
        ),
        (
            "as_of=",
            "'as_of': '' is neither an RFC 3339 time nor a revision <era>.<n>",
        ),
        (
            "as_of=yesterday",
            "'as_of': 'yesterday' is neither an RFC 3339 time nor a revision <era>.<n>",
        ),
        (
            "as_of=2026-01-01",
            "'as_of': '2026-01-01' is neither an RFC 3339 time nor a revision <era>.<n>",
        ),
        (
            "as_of=9999-12-31T23:59:59-14:00",
            "'as_of': '9999-12-31T23:59:59-14:00' is neither an RFC 3339 time nor a revision <era>.<n>",
        ),
        ("as_of=1.1&as_of=1.2", "'as_of' is given twice, with different values"),
    ] {
        let error = parse(query_string).expect_err(query_string);
        assert_eq!(error.to_string(), message, "{query_string}");
        assert_eq!(error.limit(), None, "{query_string}");
    }
}

#[test]
fn names_the_limit_that_was_hit() {
    let limits = Limits {
        query_string: 60,
        query_terms: 3,
        query_keys: 2,
        pattern: 5,
        pattern_stars: 2,
        ..Limits::default()
    };
    for (query_string, limit) in [
        ("tag=a&tag=b&tag=c&tag=a", None),
        ("tag=a&tag=b&tag=c&os=a", Some("query_terms")),
        ("tag=a&os=b&tag=a", None),
        ("tag=a&os=b&label:a=c", Some("query_keys")),
        ("label:a=1&label:a:exists=1&label:a:matches=1", Some("query_keys")),
        ("tag:matches=ééééé", None),
        ("tag:matches=abcdef", Some("pattern")),
        ("label:a:matches=abcdef", Some("pattern")),
        ("tag:matches=*a*", None),
        ("tag:matches=*a**", Some("pattern_stars")),
        ("annotation:a:matches=***", Some("pattern_stars")),
        ("unknown1=a&unknown2=b&unknown3=c&unknown4=d", None),
        ("unknown=                                                   .", None),
        (
            "unknown=                                                    .",
            Some("query_string"),
        ),
    ] {
        let hit = SearchQuery::parse_index(query_string, &limits)
            .err()
            .map(|error| error.limit());
        assert_eq!(hit, limit.map(Some), "{query_string}");
    }
    let pairs = [("os".to_owned(), "a".repeat(59))];
    let hit = SearchQuery::from_pairs(pairs, &limits).err().map(|error| error.limit());
    assert_eq!(hit, Some(Some("query_string")));
}

#[test]
fn only_the_index_endpoints_ignore_unknown_parameters() {
    let limits = Limits::default();
    let strict = |query_string| SearchQuery::parse_strict(query_string, &limits, &["limit"]);
    assert_eq!(parse("tag=a&lable:a=b"), parse("tag=a"));
    assert_eq!(strict("tag=a&limit=5"), parse("tag=a"));
    for (query_string, message) in [
        (
            "tag=a&lable:a=b",
            "'lable:a' is no parameter here; the nearest one is 'label:<key>'",
        ),
        ("limits=5", "'limits' is no parameter here; the nearest one is 'limit'"),
        ("Tag=a", "'Tag' is no parameter here; the nearest one is 'tag'"),
    ] {
        assert_eq!(strict(query_string).expect_err(query_string).to_string(), message);
    }
    let pairs = |name: &str| [(name.to_owned(), "5".to_owned())];
    assert_eq!(SearchQuery::from_pairs(pairs("tag"), &limits), parse("tag=5"));
    let error = SearchQuery::from_pairs(pairs("limit"), &limits).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "'limit' is no parameter here; the nearest one is 'digest'"
    );
    assert!(SearchQuery::from_pairs(pairs("tag\0"), &limits).is_err());
}

/// Names and values as people, and those who are no friends, may send them.
fn pair() -> impl Strategy<Value = (String, String)> {
    let key = prop_oneof!["[a:%_é]{0,4}", any::<String>()].prop_map(|key| key.replace('\0', ""));
    let family = prop_oneof![Just("label"), Just("annotation")];
    let text = prop_oneof!["[a-z]{0,3}", any::<String>()].prop_map(|text| text.replace('\0', ""));
    let glob = prop_oneof!["[ab?]{0,4}[*]{0,2}[ab?]{0,4}[*]{0,2}", "[%_é\\\\🦀]{0,6}"];
    let plain = prop_oneof![
        Just("repository"),
        Just("tag"),
        Just("os"),
        Just("architecture"),
        Just("artifact_type"),
        Just("unknown"),
    ];
    prop_oneof![
        (plain, text.clone()).prop_map(|(name, value)| (name.to_owned(), value)),
        (family.clone(), key.clone(), text).prop_map(|(family, key, value)| (format!("{family}:{key}."), value)),
        (family.clone(), key.clone()).prop_map(|(family, key)| (format!("{family}:{key}:exists"), "1".to_owned())),
        (family, key, glob.clone()).prop_map(|(family, key, glob)| (format!("{family}:{key}:matches"), glob)),
        (prop_oneof![Just("tag"), Just("repository")], glob).prop_map(|(name, glob)| (format!("{name}:matches"), glob)),
        any::<[u8; 2]>().prop_map(|body| ("digest".to_owned(), Digest::of(&body).to_string())),
    ]
}

fn wide() -> Limits {
    Limits {
        query_string: usize::MAX,
        query_keys: 100,
        ..Limits::default()
    }
}

fn encode(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

proptest! {
    #[test]
    fn the_canonical_text_reads_back_as_the_same_query(
        pairs in vec(pair(), 0..12), seconds in proptest::option::of(-62_200_000_000i64..253_500_000_000),
        nanos in 0u32..2_000_000_000,
    ) {
        let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, nanos));
        let as_of = time.map(|time| ("as_of".to_owned(), time.to_rfc3339()));
        let pairs: Vec<_> = pairs.into_iter().chain(as_of).collect();
        let Ok(query) = SearchQuery::parse_index(&encode(&pairs), &wide()) else {
            prop_assert!(time.is_some(), "only such a time may be refused");
            return Ok(());
        };
        let again = SearchQuery::parse_strict(&query.canonical(), &wide(), &[]);
        prop_assert_eq!(again.as_ref(), Ok(&query));
        prop_assert_eq!(again.map(|again| again.canonical()), Ok(query.canonical()));
    }

    #[test]
    fn order_repetition_and_junk_change_nothing(
        (pairs, shuffled) in vec(pair(), 0..12).prop_flat_map(|pairs| {
            let twice: Vec<_> = pairs.iter().chain(&pairs).cloned().collect();
            (Just(pairs), Just(twice).prop_shuffle())
        }),
        junk in "[b-z]{1,5}",
    ) {
        let plain = SearchQuery::parse_index(&encode(&pairs), &wide());
        let junk = format!("&{junk}.={junk}&&{}&{junk}.", encode(&shuffled));
        prop_assert_eq!(SearchQuery::parse_index(&junk, &wide()), plain);
    }

    #[test]
    fn never_panics(query_string in any::<String>()) {
        if let Ok(query) = parse(&query_string) {
            prop_assert_eq!(SearchQuery::parse_index(&query.canonical(), &wide()), Ok(query));
        }
    }
}
