//! Reports of small tables.
#![allow(clippy::unwrap_used)]

use sluice_sdk::testing::Harness;

use super::*;

const HEADER: &str = "index, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], temperature.gpu, clocks_throttle_reasons.active";

/// The report, and the reasons of what was rejected.
fn report(config: &str, lines: &[&str]) -> (String, Vec<String>) {
    let mut harness = Harness::<GpuReport>::new(config).unwrap();
    let mut reasons = Vec::new();
    for batch in lines.chunks(3) {
        let processed = harness.process(batch).unwrap();
        assert!(processed.records.is_empty());
        reasons.extend(processed.rejects.iter().map(|(_, reason)| reason.clone()));
    }
    let mut records = harness.finish().unwrap();
    assert_eq!(records.len(), 1);
    (records.remove(0), reasons)
}

#[test]
fn the_samples_of_each_gpu_are_summed_up() {
    let (report, rejects) = report(
        "{}",
        &[
            HEADER,
            "10, NVIDIA A10, 0 %, 4 MiB, 23028 MiB, 31, 0x0000000000000001",
            "9, NVIDIA A10, 97 %, 22100 MiB, 23028 MiB, 88, 0x0000000000000020",
            "",
            HEADER,
            "9, NVIDIA A10, 90 %, 1000 MiB, 23028 MiB, 61, 0x0000000000000000",
            "T4, NVIDIA \"T4\", [N/A], 4 MiB, 15360 MiB, [N/A], [Not Supported]",
        ],
    );
    assert_eq!(
        report,
        concat!(
            r#"{"report":"gpu-report","samples":4,"rejected":0,"gpus":["#,
            r#"{"gpu":"T4","name":"NVIDIA \"T4\"","samples":1,"utilisation_percent":null,"memory_used_mib":{"min":4,"mean":4,"max":4},"#,
            r#""memory_total_mib":15360,"memory_percent_max":0,"temperature_c":null,"throttled_samples":null,"throttling":null,"concerns":[]},"#,
            r#"{"gpu":"9","name":"NVIDIA A10","samples":2,"utilisation_percent":{"min":90,"mean":93,"max":97},"#,
            r#""memory_used_mib":{"min":1000,"mean":11550,"max":22100},"memory_total_mib":23028,"memory_percent_max":95,"#,
            r#""temperature_c":{"min":61,"mean":74,"max":88},"throttled_samples":1,"throttling":{"sw-thermal-slowdown":1},"#,
            r#""concerns":["hot","memory-full","throttling"]},"#,
            r#"{"gpu":"10","name":"NVIDIA A10","samples":1,"utilisation_percent":{"min":0,"mean":0,"max":0},"#,
            r#""memory_used_mib":{"min":4,"mean":4,"max":4},"memory_total_mib":23028,"memory_percent_max":0,"#,
            r#""temperature_c":{"min":31,"mean":31,"max":31},"throttled_samples":0,"throttling":{},"concerns":[]}"#,
            r#"],"samples_left_out":0,"message":null}"#,
        )
    );
    assert!(rejects.is_empty(), "{rejects:?}");
}

#[test]
fn columns_come_in_any_order_without_units_and_by_newer_names() {
    let (report, _) = report(
        r#"{"hot_c":60}"#,
        &[
            "uuid, temperature.gpu, clocks_event_reasons.hw_slowdown, clocks_event_reasons.sw_power_cap, pstate",
            "GPU-1, 60, Not Active, Active, P0",
        ],
    );
    assert!(
        report.contains(
            r#""gpu":"GPU-1","name":null,"samples":1,"utilisation_percent":null,"memory_used_mib":null,"memory_total_mib":null,"memory_percent_max":null,"temperature_c":{"min":60,"mean":60,"max":60},"throttled_samples":1,"throttling":{"sw-power-cap":1},"concerns":["hot","throttling"]"#
        ),
        "{report}"
    );
}

#[test]
fn what_is_no_sample_is_rejected_with_its_words() {
    let (report, rejects) = report(
        "{}",
        &[
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            HEADER,
            "No devices were found",
            "0, X, 97 %, lots, 23028 MiB, 88, 0x0",
            "0, X, 97 %, 1 MiB, 2 MiB, 88, soon",
        ],
    );
    for (reason, said) in rejects.iter().zip([
        "no header came before",
        "1 values for 7 columns: No devices were found",
        "`memory.used` is no whole number: lots",
        "`clocks_throttle_reasons.active` is no number in hexadecimal: soon",
    ]) {
        assert!(reason.contains(said), "{reason}");
    }
    assert_eq!(rejects.len(), 4);
    assert!(
        report.starts_with(r#"{"report":"gpu-report","samples":0,"rejected":4,"gpus":[],"samples_left_out":0,"message":"no GPU was told of"#),
        "{report}"
    );
}

#[test]
fn more_gpus_than_there_is_room_for_are_counted() {
    let rows: Vec<String> = (0..1_030).map(|n| format!("{n}, {n} %")).collect();
    let mut lines = vec!["index, utilization.gpu"];
    lines.extend(rows.iter().map(String::as_str));
    let (report, _) = report("{}", &lines);
    assert!(report.contains(r#""samples":1030,"#) && report.contains(r#""samples_left_out":6"#));
}

#[test]
fn a_wrong_config_is_refused() {
    let refused = |config| Harness::<GpuReport>::new(config).unwrap_err();
    assert!(refused(r#"{"memory_full_percent":101}"#).contains("over 100"));
    assert!(refused(r#"{"hot":1}"#).contains("hot"));
}
