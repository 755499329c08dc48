//! Reports of small logs of requests.
#![allow(clippy::unwrap_used)]

use sluice_sdk::testing::Harness;

use super::*;

fn map(config: &str, lines: &[String]) -> Vec<String> {
    let mut harness = Harness::<ServiceMap>::new(config).unwrap();
    for batch in lines.chunks(7) {
        assert!(harness.process(batch).unwrap().records.is_empty());
    }
    harness.finish().unwrap()
}

fn nova(second: u32, callers: &str, request: &str, status: u16, time: &str) -> String {
    format!(
        "2017-05-16 00:00:{second:02}.000 7 INFO nova.wsgi [req-1 - -] {callers} \"{request} HTTP/1.1\" status: {status} len: 10 time: {time}"
    )
}

#[test]
fn who_calls_what_is_counted_by_route_and_status() {
    let lines = [
        nova(5, "10.0.0.1", "GET /v2/7/servers", 200, "0.2"),
        nova(1, "10.0.0.1", "GET /v2/8/servers?x=1", 404, "0.3"),
        nova(9, "10.0.0.2,10.0.0.1", "POST /v2/servers", 503, "1.5"),
        "2017-05-16 00:00:07.000 7 INFO nova.compute [-] up".to_owned(),
    ];
    let report = map("{}", &lines);
    let expected = concat!(
        r#"{"report":"service-map","lines":4,"other_lines":1,"first_seen":"2017-05-16T00:00:01","last_seen":"2017-05-16T00:00:09","#,
        r#""requests":3,"status":{"200":1,"404":1,"503":1},"classes":{"2xx":1,"4xx":1,"5xx":1},"bytes":30,"#,
        r#""latency_us":{"requests":3,"exact":true,"p50":300000,"p90":1500000,"p99":1500000,"max":1500000},"edges_found":2,"edges":["#,
        r#"{"caller":"10.0.0.1","service":"nova.wsgi","requests":2,"status":{"200":1,"404":1},"classes":{"2xx":1,"4xx":1},"bytes":20,"#,
        r#""latency_us":{"requests":2,"exact":true,"p50":200000,"p90":300000,"p99":300000,"max":300000}},"#,
        r#"{"caller":"10.0.0.2","service":"nova.wsgi","requests":1,"status":{"503":1},"classes":{"5xx":1},"bytes":10,"#,
        r#""latency_us":{"requests":1,"exact":true,"p50":1500000,"p90":1500000,"p99":1500000,"max":1500000}}],"#,
        r#""requests_of_other_edges":0,"edge_requests_left_out":0,"calls_found":2,"calls":["#,
        r#"{"caller":"10.0.0.1","service":"nova.wsgi","method":"GET","route":"/v2/{id}/servers","requests":2,"status":{"200":1,"404":1},"#,
        r#""classes":{"2xx":1,"4xx":1},"bytes":20,"latency_us":{"requests":2,"exact":true,"p50":200000,"p90":300000,"p99":300000,"max":300000}},"#,
        r#"{"caller":"10.0.0.2","service":"nova.wsgi","method":"POST","route":"/v2/servers","requests":1,"status":{"503":1},"#,
        r#""classes":{"5xx":1},"bytes":10,"latency_us":{"requests":1,"exact":true,"p50":1500000,"p90":1500000,"p99":1500000,"max":1500000}}],"#,
        r#""requests_of_other_calls":0,"requests_left_out":0}"#,
    );
    assert_eq!(report, [expected]);

    let graph = map(r#"{"format":"dot"}"#, &lines);
    assert_eq!(
        graph,
        [
            "digraph service_map {",
            "  rankdir=LR; node [shape=box];",
            "  \"10.0.0.1\" -> \"nova.wsgi\" [label=\"2 requests\\np50 200.0 ms, p99 300.0 ms\\n1 4xx, 0 5xx\"];",
            "  \"10.0.0.2\" -> \"nova.wsgi\" [label=\"1 requests\\np50 1500.0 ms, p99 1500.0 ms\\n0 4xx, 1 5xx\", color=red];",
            "}",
        ]
    );
    let both = map(r#"{"format":"both","top":1}"#, &lines);
    assert!(
        both[0].contains(r#""requests_of_other_calls":1"#),
        "{both:?}"
    );
    assert_eq!(both[4], "  // 1 more requests, of edges that are not shown");
}

#[test]
fn an_access_log_s_service_is_named_by_the_config() {
    let line = "a\"b - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 7".to_owned();
    let report = map(r#"{"service":"shop","format":"both"}"#, &[line]);
    assert!(
        report[0].contains(r#""caller":"a\"b","service":"shop""#),
        "{report:?}"
    );
    assert!(report[0].contains(r#""latency_us":null"#), "{report:?}");
    assert_eq!(report[3], r#"  "a\"b" -> "shop" [label="1 requests"];"#);
    let none = map(r#"{"format":"both"}"#, &[]);
    assert!(
        none[0].contains(r#""requests":0"#) && none.len() == 4,
        "{none:?}"
    );
}

#[test]
fn kinds_of_calls_are_bounded_and_the_rest_is_counted() {
    let calls = CALLS_MAX + 20;
    let lines: Vec<String> = (0..calls)
        .map(|number| {
            nova(
                1,
                &format!("c{}", number % (EDGES_MAX + 5)),
                &format!("GET /x{number}"),
                200,
                "0.1",
            )
        })
        .collect();
    let report = map("{}", &lines);
    for said in [
        format!(r#""requests":{calls},"#),
        r#""requests_left_out":20}"#.to_owned(),
        format!(r#""calls_found":{CALLS_MAX}"#),
        format!(r#""edges_found":{EDGES_MAX}"#),
        r#""edge_requests_left_out":20,"#.to_owned(),
    ] {
        assert!(report[0].contains(&said), "{said}");
    }
    let mut many = Calls::new(1);
    for status in 0..600 {
        let line = nova(1, "c", "GET /", status, "0");
        many.add(&find(&line, Duration::None).unwrap());
    }
    assert_eq!(
        (many.statuses.len(), many.other_statuses),
        (STATUSES_MAX, 600 - 32)
    );
}

#[test]
fn a_wrong_config_is_refused_with_its_key() {
    for (config, said) in [
        (r#"{"top":0}"#, "`top` is 0, and may be 1 to 1000"),
        (r#"{"service":""}"#, "`service` has 1 to 128 bytes"),
        (r#"{"latency":"minutes"}"#, "unknown variant `minutes`"),
        (r#"{"format":"png"}"#, "unknown variant `png`"),
    ] {
        let error = Harness::<ServiceMap>::new(config).unwrap_err();
        assert!(error.contains(said), "{config}: {error}");
    }
}
