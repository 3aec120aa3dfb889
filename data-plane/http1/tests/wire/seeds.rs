//! The seeds of the fuzz targets, replayed on stable through the same oracle. A crash that the fuzzer
//! finds becomes a seed.

#[test]
fn every_seed_satisfies_the_oracle_of_its_target() {
    for target in ["request", "response", "chunked"] {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut seeds = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let data = std::fs::read(entry.unwrap().path()).unwrap();
            crate::oracle::check(target, &data);
            // The fuzzer starts from seeds as they are; here they are also cut short at every byte.
            (0..data.len()).for_each(|end| crate::oracle::check(target, &data[..end]));
            seeds += 1;
        }
        assert!(seeds >= 10, "{folder} has only {seeds} seeds");
    }
}
