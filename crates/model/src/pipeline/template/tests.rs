//! Both ways of rendering, and every way of being wrong.

#![allow(clippy::unwrap_used)]

use super::*;

fn check(text: &str, expected: &str) {
    let labels = Labels::from([("site".to_owned(), "plant-7".to_owned())]);
    let (node, job) = ("e1".parse().unwrap(), "temps".parse().unwrap());
    let context = TemplateContext {
        node: &node,
        labels: &labels,
        job: &job,
        execution: ExecutionId::from_random([7; 16]),
        hostname: "machine",
        params: &Default::default(),
    };
    let shown = match Template::parse(text, TemplateScope::Setting) {
        Ok(template) => match template.render(&context) {
            Ok(rendered) => {
                let mut bytes = Vec::new();
                template
                    .resolve(&context)
                    .unwrap()
                    .render_into(&mut bytes, 0, "");
                assert_eq!(
                    bytes,
                    rendered.as_bytes(),
                    "both ways of rendering agree on {text}"
                );
                rendered
            }
            Err(error) => error.to_string(),
        },
        Err(error) => format!("{:?} {error}", error.at().map(|at| &text[at])),
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn settings_render_or_say_why_not() {
    check("", "");
    check("plain $ } text", "plain $ } text");
    check("${node.name}/${job.name}", "e1/temps");
    check("${execution.id}", "07070707-0707-4707-8707-070707070707");
    check("a-${node.labels.site}-b", "a-plant-7-b");
    check(
        "${node.labels.line:-none}${node.labels.site:-x}",
        "noneplant-7",
    );
    check("${node.labels.line:-}", "");
    check(
        "${node.labels.line}",
        "this node has no label `line`; set it, or write `${node.labels.line:-default}`",
    );
    check("$${node.name} $$${job.name}", "${node.name} $${job.name}");
    check("é$${é${node.name}é", "é${ée1é");
    check(
        "x ${node.nme} y",
        "Some(\"${node.nme}\") unknown variable `${node.nme}`",
    );
    check("${}", "Some(\"${}\") unknown variable `${}`");
    check(
        "${seq}",
        "Some(\"${seq}\") `${seq}` exists only in the template of `[input.generate]`",
    );
    check(
        "a ${node.name",
        "Some(\"${node.name\") `${` is never closed; write `$${` for a literal one",
    );
    check(
        "${node.labels.a b}",
        "Some(\"${node.labels.a b}\") `a b` is not a label key: it may have only letters, digits, `-`, `_`, `.` and `/`",
    );
}

#[test]
fn every_problem_of_a_text_is_found() {
    let problems = Template::problems("${a} ${node.name} ${now} ${b", TemplateScope::Setting);
    assert_eq!(
        problems
            .iter()
            .map(|problem| problem.at().unwrap().start)
            .collect::<Vec<_>>(),
        [0, 18, 25]
    );
}

#[test]
fn a_resolved_record_has_only_seq_and_now_left() {
    let (node, job) = ("e1".parse().unwrap(), "temps".parse().unwrap());
    let context = TemplateContext {
        node: &node,
        labels: &Labels::new(),
        job: &job,
        execution: ExecutionId::from_random([7; 16]),
        hostname: "machine",
        params: &Default::default(),
    };
    let template = Template::parse(
        "${hostname}:${node.name} ${seq} $${x} ${now}",
        TemplateScope::Record,
    )
    .unwrap();
    let resolved = template.resolve(&context).unwrap();
    assert_eq!(
        resolved.variables().collect::<Vec<_>>(),
        [&Variable::Seq, &Variable::Now]
    );
    assert!(resolved.uses_now());
    assert_eq!(resolved.as_written(), template.as_written());
    let mut out = b"before ".to_vec();
    resolved.render_into(&mut out, 18_446_744_073_709_551_615, "T");
    assert_eq!(out, b"before machine:e1 18446744073709551615 ${x} T");
    assert!(matches!(
        template.render(&context),
        Err(TemplateError::RecordOnly { .. })
    ));
}

#[test]
fn a_stages_settings_are_rendered_in_their_strings_only() {
    let text = r#"
        name = "a"
        [input.stdin]
        [output.discard]
        [[stage]]
        name = "s"
        plugin = "s.wasm"
        [stage.config]
        "${key}" = "${node.name}"
        list = [1, "$${x}", { deep = "${node.labels.site:-nowhere}" }]
        flag = true
    "#;
    let pipeline = crate::pipeline::parse(text).unwrap();
    let (node, job) = ("e1".parse().unwrap(), "a".parse().unwrap());
    let labels = Labels::new();
    let execution = ExecutionId::from_random([7; 16]);
    let context = TemplateContext {
        node: &node,
        labels: &labels,
        job: &job,
        execution,
        hostname: "machine",
        params: &Default::default(),
    };
    let rendered = pipeline.stages[0].render_config(&context).unwrap();
    assert_eq!(
        rendered,
        serde_json::json!({ "${key}": "e1", "list": [1, "${x}", { "deep": "nowhere" }], "flag": true })
    );

    let mut stage = pipeline.stages[0].clone();
    stage.config = serde_json::json!({ "site": "${node.labels.site}" });
    let error = stage.render_config(&context).unwrap_err();
    assert_eq!(
        error,
        TemplateError::MissingLabel {
            key: "site".to_owned()
        }
    );
}
