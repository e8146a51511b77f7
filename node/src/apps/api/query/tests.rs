//! Each operator, with what sift 3.3.12 was seen to do.

use serde_json::{Value, json};

use super::{Query, QueryError, QueryLimits, Work};

fn parse(query: Value) -> Result<Query, QueryError> {
    Query::parse(&query, &QueryLimits::default())
}

fn matches(query: Value, value: Value) -> bool {
    parse(query).unwrap().matches(Some(&value), &plenty())
}

fn plenty() -> Work {
    Work::new(1 << 20)
}

fn refused(query: Value) -> String {
    parse(query).unwrap_err().to_string()
}

/// Which of several values match.
fn matching(query: Value, values: &[Value]) -> Vec<Value> {
    let query = parse(query).unwrap();
    values.iter().filter(|value| query.matches(Some(value), &plenty())).cloned().collect()
}

#[test]
fn bare_value_is_equality() {
    assert!(matches(json!(5), json!(5.0)) && !matches(json!(5), json!("5")));
    assert!(matches(json!({"a": "x"}), json!({"a": "x", "b": 1})));
    assert!(matches(json!({"a": true}), json!({"a": [false, true]})));
    assert!(!matches(json!({"a": 0}), json!({"a": false})));
}

#[test]
fn null_matches_what_is_missing() {
    assert!(matches(json!({"a": null}), json!({})));
    assert!(matches(json!({"a": null}), json!({"a": null})));
    assert!(matches(json!({"a.b.c": null}), json!({"a": null})));
    assert!(!matches(json!({"a": null}), json!({"a": 0})));
    assert!(parse(json!(null)).unwrap().matches(None, &plenty()));
    assert!(!parse(json!({"$gt": 0})).unwrap().matches(None, &plenty()));
}

#[test]
fn object_is_a_query_and_not_a_value() {
    assert!(matches(json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}})));
    assert!(matches(json!({}), json!({"a": 1})) && matches(json!({}), json!(null)));
    assert!(!matches(json!({"$eq": {"a": 1}}), json!({"a": 1})));
    assert!(!matches(json!({"$eq": {}}), json!({})));
}

#[test]
fn array_is_equal_only_if_it_is_empty() {
    assert!(matches(json!({"a": []}), json!({"a": []})));
    assert!(!matches(json!({"a": [1]}), json!({"a": [1]})));
    assert!(matches(json!({"a": []}), json!({"a": [[], 1]})));
}

#[test]
fn path_goes_through_arrays_and_may_name_an_element() {
    let value = json!({"a": [{"b": 1}, {"b": [2, 3]}], "s": "xyz"});
    for (query, expected) in [
        (json!({"a.b": 1}), true),
        (json!({"a.b": 3}), true),
        (json!({"a.b": 4}), false),
        (json!({"a.0.b": 1}), true),
        (json!({"a.1.b": 1}), false),
        (json!({"a.1.b.1": 3}), true),
        (json!({"a.b.c": null}), true),
        (json!({"a. 1.b": 2}), false),
        (json!({"s.length": 3}), true),
        (json!({"s.1": "y"}), true),
        (json!({"s.1.length": 1}), true),
        (json!({"s.1.0.0": "y"}), true),
    ] {
        assert_eq!(matches(query.clone(), value.clone()), expected, "{query}");
    }
    assert!(!matches(json!({"a.b": null}), json!({"a": []})));
}

#[test]
fn eq_and_ne_look_at_elements() {
    let values = [json!(1), json!([1, 2]), json!([2]), json!([]), json!(null), json!("1")];
    assert_eq!(matching(json!({"$eq": 1}), &values), values[..2]);
    assert_eq!(matching(json!({"$ne": 1}), &values), values[2..]);
    assert!(matches(json!({"a": {"$ne": null}}), json!({"a": 1})));
    assert!(!matches(json!({"a": {"$ne": null}}), json!({})));
}

#[test]
fn order_exists_only_within_a_type() {
    let values =
        [json!(4), json!(5), json!("5"), json!(null), json!([1, 9]), json!({}), json!(true)];
    assert_eq!(matching(json!({"$gt": 4}), &values), [json!(5), json!([1, 9])]);
    assert_eq!(matching(json!({"$gte": 4}), &values), [json!(4), json!(5), json!([1, 9])]);
    assert_eq!(matching(json!({"$lt": 5}), &values), [json!(4), json!([1, 9])]);
    assert_eq!(matching(json!({"$lte": 4}), &values), [json!(4), json!([1, 9])]);
    assert_eq!(matching(json!({"$gt": "4"}), &values), [json!("5")]);
    assert_eq!(matching(json!({"$gte": false}), &values), [json!(true)]);
    // Of type `object`, as arrays and objects are: JavaScript makes texts or numbers of them.
    assert!(matches(json!({"$gte": null}), json!(null)));
    assert!(matches(json!({"$gt": [1]}), json!([[2]])));
    assert!(matches(json!({"$lt": [1]}), json!([])));
    assert!(matches(json!({"$lt": [1]}), json!(null)));
    assert!(!matches(json!({"$gte": {}}), json!({})));
}

#[test]
fn texts_are_ordered_by_their_code_units() {
    // U+FF5E comes after the first half of U+1F6A2.
    assert!(matches(json!({"$gt": "\u{1f6a2}"}), json!("\u{ff5e}")));
}

#[test]
fn mod_takes_the_remainder_of_what_counts_as_a_number() {
    let values = [json!(4), json!("7"), json!(true), json!(null), json!("x"), json!(-2), json!({})];
    assert_eq!(matching(json!({"$mod": [3, 1]}), &values), [json!(4), json!("7"), json!(true)]);
    assert_eq!(matching(json!({"$mod": [3, -2]}), &values), [json!(-2)]);
    assert!(matching(json!({"$mod": [0, 0]}), &values).is_empty());
    assert_eq!(refused(json!({"$mod": 3})), "$mod wants two numbers");
}

#[test]
fn in_takes_values_and_queries() {
    let values = [json!(1), json!([5, 1]), json!("a"), json!(null), json!({"x": 1}), json!([])];
    assert_eq!(matching(json!({"$in": [1, "a"]}), &values), values[..3]);
    assert_eq!(matching(json!({"$nin": [1, "a"]}), &values), values[3..]);
    assert!(matches(json!({"$in": [{"$gt": 3}]}), json!(4)));
    assert!(!matches(json!({"$in": [{"x": 1}]}), json!({"x": 1})), "objects are asked no queries");
    assert!(matches(json!({"a": {"$in": [null]}}), json!({})));
    assert!(matches(json!({"$in": ["null"]}), json!(null)), "String(null)");
    assert_eq!(refused(json!({"$in": "abc"})), "$in wants an array");
}

#[test]
fn queries_are_combined() {
    let values = [json!(1), json!(5), json!(9)];
    assert_eq!(matching(json!({"$gt": 1, "$lt": 9}), &values), [json!(5)]);
    assert_eq!(matching(json!({"$and": [{"$gt": 1}, {"$lt": 9}]}), &values), [json!(5)]);
    assert_eq!(matching(json!({"$or": [1, {"$gt": 5}]}), &values), [json!(1), json!(9)]);
    assert_eq!(matching(json!({"$nor": [1, {"$gt": 5}]}), &values), [json!(5)]);
    assert_eq!(matching(json!({"$not": {"$gt": 1}}), &values), [json!(1)]);
    assert!(matching(json!({"$or": []}), &values).is_empty());
    assert_eq!(matching(json!({"$nor": []}), &values), values);
    assert_eq!(refused(json!({"$or": {"a": 1}})), "$or wants an array");
}

#[test]
fn all_wants_each_of_its_elements() {
    assert!(matches(json!({"$all": [1, {"$gt": 3}]}), json!([1, 4])));
    assert!(!matches(json!({"$all": [1, 2]}), json!([1, 4])));
    assert!(matches(json!({"$all": []}), json!(7)));
}

#[test]
fn size_is_the_length() {
    let values = [json!([1, 2]), json!("ab"), json!({"length": 2}), json!(2), json!("\u{1f6a2}")];
    let expected = [json!([1, 2]), json!("ab"), json!({"length": 2}), json!("\u{1f6a2}")];
    assert_eq!(matching(json!({"$size": 2}), &values), expected);
    assert!(matches(json!({"$size": 0}), json!([])) && !matches(json!({"$size": 0}), json!("")));
    assert_eq!(refused(json!({"$size": "2"})), "$size wants a number");
}

#[test]
fn elem_match_asks_elements_one_by_one() {
    let query = json!({"a": {"$elemMatch": {"b": 1, "c": 2}}});
    assert!(matches(query.clone(), json!({"a": [{"b": 1}, {"b": 1, "c": 2}]})));
    assert!(!matches(query.clone(), json!({"a": [{"b": 1}, {"c": 2}]})));
    assert!(matches(query, json!({"a": {"b": 1, "c": 2}})), "sift asks what is no array itself");
}

#[test]
fn exists_is_about_null_too() {
    let values = [json!({"a": 1}), json!({"a": null}), json!({})];
    assert_eq!(matching(json!({"a": {"$exists": true}}), &values), values[..1]);
    assert_eq!(matching(json!({"a": {"$exists": 0}}), &values), values[1..]);
}

#[test]
fn regex_looks_for_a_text() {
    let values = [json!("Fleet"), json!("afloat"), json!(["x", "fl"]), json!(1), json!(null)];
    assert_eq!(
        matching(json!({"$regex": "^fl", "$options": "i"}), &values),
        [json!("Fleet"), json!(["x", "fl"])]
    );
    assert_eq!(matching(json!({"$regex": "fl"}), &values), [json!("afloat"), json!(["x", "fl"])]);
    // Without a regular expression beside them options mean nothing.
    assert!(matches(json!({"$options": 7}), json!(1)));
}

#[test]
fn regular_expressions_are_javascripts() {
    for (source, text, expected) in [
        (r"^\d+$", "12", true),
        (r"^\d+$", "١٢", false),
        (r"^\w+$", "é", false),
        (r"\bé", "xé", true),
        (r"\Ba", "ba", true),
        (r"^a.b$", "a\u{2028}b", false),
        (r"^a[^]b$", "a\nb", true),
        ("[]", "a", false),
        (r"^[\d-z]+$", "1-z", true),
        (r"^[a-c&&\[]+$", "ab&[", true),
        (r"^[\w.\-]+$", "a.b-c", true),
        (r"a{", "a{", true),
        (r"^a{2,3}$", "aaa", true),
        (r"^{}$", "{}", true),
        (r"^(?<year>\d{4})-(?:\d\d)$", "2026-11", true),
        (r"^\u0041\x42\cJ\0$", "AB\n\0", true),
        (r"^\ud83d\udea2$", "\u{1f6a2}", true),
        (r"^\/\a$", "/a", true),
        (r"^[\b]$", "\u{8}", true),
        (r"^\s$", "\u{feff}", true),
        ("a$", "a\n", false),
    ] {
        assert_eq!(matches(json!({"$regex": source}), json!(text)), expected, "{source}");
    }
    let with = |flags: &str, source: &str, text: &str| {
        matches(json!({"$regex": source, "$options": flags}), json!(text))
    };
    assert!(with("m", "^b$", "a\nb\nc") && !with("", "^b$", "a\nb\nc"));
    assert!(with("s", "^a.b$", "a\nb") && with("is", "^A.B$", "a\nb"));
    assert!(with("u", r"^\p{Lu}\u{1F6A2}$", "É\u{1f6a2}"));
}

#[test]
fn what_cannot_be_matched_in_linear_time_is_refused_by_name() {
    for (source, options, error) in [
        ("a(?=b)", "", "look-around is not supported"),
        ("(?<!a)b", "", "look-around is not supported"),
        (r"(a)\1", "", "backreferences are not supported"),
        (r"(?<x>a)\k<x>", "", "backreferences are not supported"),
        ("a", "g", "flag 'g' is not supported"),
        ("a", "ii", "flag 'i' is given twice"),
        ("(a", "", "unclosed group"),
        ("[b-a]", "", "a range of a class is out of order"),
        ("[a", "", "a class is not closed"),
        ("a\\", "", "it ends in a backslash"),
        (r"\ud83d", "", "half a character is not supported"),
        ("(?i)a", "", "invalid group"),
        ("*", "", "repetition operator missing expression"),
    ] {
        let refused = refused(json!({"$regex": source, "$options": options}));
        assert_eq!(refused, format!("invalid regular expression: {error}"), "{source}");
    }
    assert_eq!(refused(json!({"$regex": 5})), "$regex wants a text");
    assert_eq!(
        refused(json!({"$regex": "a", "$options": null})),
        "$regex wants a text as its $options"
    );
}

#[test]
fn catastrophic_regular_expression_is_quick_or_refused() {
    // Backtracking would take 2^40 steps.
    let text = format!("{}b", "a".repeat(40));
    assert!(!matches(json!({"$regex": "^(a+)+$"}), json!(text)));
    for huge in ["(a{1000}){1000}", "((((a{100}){100}){100}){100})"] {
        assert!(refused(json!({"$regex": huge})).contains("exceeds size limit"));
    }
    let deep = format!("{}{}", "(".repeat(100), ")".repeat(100));
    assert!(refused(json!({"$regex": deep})).contains("nested"));
}

#[test]
fn unknown_and_dangerous_operators_are_refused() {
    assert_eq!(refused(json!({"$where": "process.exit()"})), "operator $where is not supported");
    assert_eq!(refused(json!({"a": {"$type": "x"}})), "operator $type is not supported");
    assert_eq!(refused(json!({"$or": [{"$foo": 1}]})), r#"unknown operator "$foo""#);
    assert_eq!(refused(json!({"$in": [{"$where": "1"}]})), "operator $where is not supported");
    // Names that JavaScript's objects inherit are paths like any other.
    assert!(!matches(json!({"constructor": 1, "__proto__": 1}), json!({})));
    assert!(matches(json!({"toString": null}), json!({})));
}

#[test]
fn size_of_a_query_is_bounded() {
    let long = json!({"a": "x".repeat(3000)});
    assert_eq!(refused(long), "the query is longer than 2048 bytes");
    let mut deep = json!(1);
    for _ in 0..17 {
        deep = json!({"$not": deep});
    }
    assert_eq!(refused(deep), "the query is nested deeper than 16");
    let mut array = json!([]);
    for _ in 0..16 {
        array = json!([array]);
    }
    assert_eq!(refused(json!({"$gt": array})), "the query is nested deeper than 16");
    assert_eq!(refused(json!({"$in": vec![1; 300]})), "the query has more than 256 parts");
    assert_eq!(refused(json!({".".repeat(300): 1})), "the query has more than 256 parts");
    let regexes = vec![json!({"$regex": "a"}); 9];
    assert_eq!(refused(json!({"$or": regexes})), "the query has more than 8 regular expressions");
    assert_eq!(parse(json!({"$or": [{"$regex": "a"}, 1]})).unwrap().regexes(), 1);
}

/// Arrays inside one another around a text, as deep as JSON is read.
fn nested(text: &str, depth: usize) -> Value {
    (0..depth).fold(json!(text), |inner, _| json!([inner]))
}

#[test]
fn nested_arrays_cost_what_is_in_them_once() {
    let value = nested(&"x".repeat(1 << 16), 125);
    let cost = |query: Value| {
        let work = plenty();
        assert!(parse(query).unwrap().matches(Some(&value), &work));
        plenty().left() - work.left()
    };
    let one = cost(json!({"$gt": []}));
    // The text, at 32 bytes a step, and the levels; twice, for it is compared as well.
    assert!(one < 2 * ((1 << 16) / 32 + 200), "{one}");
    let many = cost(json!({"$and": vec![json!({"$gt": []}); 100]}));
    assert!(many < 101 * one, "{many}");
    assert!(cost(json!({"$not": {"$mod": [2, 1]}})) < 2 * one);
}

#[test]
fn match_that_takes_too_long_is_none() {
    let long = json!("x".repeat(1 << 20));
    let many = json!(vec![json!({"a": [[1, 2], [3]], "b": "é"}); 10_000]);
    for (query, value) in [
        (json!({"$and": vec![json!({"$gt": []}); 100]}), &nested(&"x".repeat(1 << 20), 125)),
        (json!({"$or": vec![json!({"$ne": 1}); 100]}), &many),
        (json!({"$not": {"$elemMatch": {"a": 4}}}), &many),
        (json!({"$nor": [{"a": {"$in": [4, 5]}}]}), &many),
        (json!({"$nor": [{"b.length": 2}]}), &many),
        (json!({"$nor": [{"$regex": "y$"}]}), &long),
        (json!({"$nor": [{"$regex": "(?:a{60}|b{60}){3}$"}]}), &json!("x".repeat(1 << 13))),
        (json!({"$nor": [{"$size": 1}]}), &long),
        (json!({"$nor": [{"$mod": [2, 1]}]}), &long),
    ] {
        let query = parse(query).unwrap();
        let enough = Work::new(1 << 30);
        assert!(query.matches(Some(value), &enough), "{query:?}");
        let work = Work::new(10_000);
        assert!(!query.matches(Some(value), &work), "{query:?}");
        assert_eq!(work.left(), 0);
    }
}
