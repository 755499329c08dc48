//! What a pipeline needs of an edge's program, and what a node lacks of it.

use std::collections::BTreeSet;

use sluice_model::World;
use sluice_model::pipeline::{Input, Output, Pipeline};

/// What a node with these capabilities lacks to run a pipeline, in words; `None` when it has everything. A node that
/// never connected has said nothing, and is expected to have it.
pub fn lacking(pipeline: &Pipeline, capabilities: &[String]) -> Option<String> {
    if capabilities.is_empty() {
        return None;
    }
    let input = match &pipeline.input {
        Input::Generate(_) => "connector:input.generate",
        Input::File(_) => "connector:input.file",
        Input::Stdin => "connector:input.stdin",
        Input::Exec(_) => "connector:input.exec",
    };
    let command = match &pipeline.input {
        Input::Exec(exec) => Some(format!("command:{}", exec.command)),
        _ => None,
    };
    let output = match pipeline.output {
        Output::Stdout(_) => "connector:output.stdout",
        Output::File(_) => "connector:output.file",
        Output::Discard => "connector:output.discard",
    };
    let mut lacks: Vec<&str> = Vec::new();
    // What nobody looked into is taken for the one that every edge has.
    let worlds = pipeline.stages.iter();
    let worlds: BTreeSet<World> = worlds
        .map(|stage| stage.world.unwrap_or(World::Transform))
        .collect();
    let connectors = [Some(input), command.as_deref(), Some(output)];
    let mut needs: Vec<&str> = connectors.into_iter().flatten().collect();
    for world in worlds {
        needs.push(world.capability());
    }
    for need in needs {
        if !capabilities.iter().any(|has| has == need) {
            lacks.push(need);
        }
    }
    (!lacks.is_empty()).then(|| lacks.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "world:transform@0.1";

    #[test]
    fn a_command_that_the_owner_did_not_list_lacks() {
        let pipeline = sluice_model::pipeline::parse(
            "name = \"a\"\n[input.exec]\ncommand = \"gpu\"\n[output.discard]\n",
        )
        .expect("a good pipeline");
        let has = |more: &[&str]| {
            let all = ["connector:input.exec", "connector:output.discard"];
            let all = all.iter().chain(more).map(|word| (*word).to_owned());
            lacking(&pipeline, &all.collect::<Vec<_>>())
        };
        assert_eq!(has(&["command:gpu"]), None);
        assert_eq!(has(&["command:gp"]).as_deref(), Some("command:gpu"));
        assert_eq!(has(&[]).as_deref(), Some("command:gpu"));
    }

    #[test]
    fn an_edge_that_cannot_end_a_report_lacks_it_by_name() {
        let mut pipeline = sluice_model::pipeline::parse(
            "name = \"a\"\n[input.file]\npath = \"in\"\n[[stage]]\nname = \"sum\"\nplugin = \"s.wasm\"\n[output.discard]\n",
        )
        .expect("a good pipeline");
        pipeline.stages[0].world = Some(World::Report);
        let has = |more: &[&str]| {
            let all = ["connector:input.file", "connector:output.discard", WORLD];
            let all = all.iter().chain(more).map(|word| (*word).to_owned());
            lacking(&pipeline, &all.collect::<Vec<_>>())
        };
        assert_eq!(has(&[]).as_deref(), Some("world:report@0.1"));
        assert_eq!(has(&["world:report@0.1"]), None);
    }

    #[test]
    fn what_lacks_is_named_once_and_silence_lacks_nothing() {
        let pipeline = sluice_model::pipeline::parse(
            "name = \"a\"\n[input.file]\npath = \"in\"\n[[stage]]\nname = \"s\"\nplugin = \"s.wasm\"\n\
             [output.file]\npath = \"out\"\n",
        )
        .expect("a good pipeline");
        let has = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|word| (*word).to_owned()).collect();
            lacking(&pipeline, &list)
        };
        let input = "connector:input.file";
        let output = "connector:output.file";
        assert_eq!(has(&[]), None);
        assert_eq!(has(&[input, output, WORLD, "arch:x86_64"]), None);
        assert_eq!(has(&[output, WORLD]).as_deref(), Some(input));
        assert_eq!(
            has(&["arch:x86_64", output]).as_deref(),
            Some("connector:input.file and world:transform@0.1")
        );
    }
}
