//! The two forms of a pass against each other, and caches on a device; the device is candle's CPU.

use super::*;

/// Keys and values rounded to f16.
const F16_CACHE_TOLERANCE: f64 = 1e-3;

/// What both forms of a pass give for a few conversations over several passes: prompts in portions, replies beside them,
/// and texts that become vectors. On a device it is at most `tolerance` from the formula and `apart` from the CPU's.
fn check_device(config: &Config, mut weights: Seeded, kind: CacheType, tolerance: f64, apart: f64) {
    let models =
        [weights.model_with(config, kind), Llama::on_device(config.clone(), &mut weights, kind, &Device::Cpu).unwrap()];
    check_model(&models[1], config, &mut weights, tolerance);
    let passes: [[(&[u32], Wanted); 3]; 5] = [
        [(&TOKENS[..5], Wanted::Nothing), (&TOKENS[..1], Wanted::Nothing), (&TOKENS[2..4], Wanted::Nothing)],
        [(&TOKENS[5..], Wanted::Last), (&TOKENS, Wanted::Each), (&TOKENS[3..], Wanted::Nothing)],
        [(&[7], Wanted::Last), (&[8], Wanted::Last), (&[9], Wanted::Last)],
        [(&TOKENS, Wanted::Hidden), (&[7, 9], Wanted::Each), (&TOKENS[..2], Wanted::Last)],
        [(&TOKENS[4..], Wanted::Hidden), (&[1], Wanted::Nothing), (&[2, 3], Wanted::Hidden)],
    ];
    let [cpu, device] = models.map(|model| {
        let (mut caches, mut workspace) = ([(); 3].map(|()| model.new_cache()), Workspace::default());
        let outputs = passes.map(|pass| {
            let with_cache = pass.into_iter().zip(&mut caches);
            let mut batch: Vec<_> =
                with_cache.map(|((tokens, wanted), cache)| Segment { tokens, cache, wanted }).collect();
            model.forward(&mut batch, &mut workspace).unwrap();
            workspace.output().to_vec()
        });
        assert_eq!(caches.map(|cache| cache.len()), [24, 14, 13]);
        outputs
    });
    assert_eq!(cpu.each_ref().map(Vec::len), [0, 10 * 50, 3 * 50, 9 * 64 + 3 * 50, 7 * 64]);
    assert!(device[0].is_empty());
    for (pass, (cpu, device)) in cpu.iter().zip(&device).enumerate().skip(1) {
        let truth: Vec<f64> = cpu.iter().map(|&v| v.into()).collect();
        let error = relative_error(device, &truth);
        assert!(error <= apart, "pass {pass}: relative error {error}, allowed {apart}");
    }
}

#[test]
fn a_device_computes_what_the_cpu_does() {
    let shapes = [(4, 4, 16, None), (4, 2, 16, Some(5)), (6, 1, 8, Some(1)), (4, 2, 8, Some(100))];
    for (n_head, n_head_kv, rope_dim, sliding_window) in shapes {
        let config = Config { n_head, n_head_kv, rope_dim, sliding_window, ..config() };
        check_device(&config, Seeded::new(&config, GgmlDType::F32), CacheType::F32, F32_TOLERANCE, F32_TOLERANCE);
    }
    // candle's scalar products take rows of 64 values.
    let config = Config { sliding_window: Some(6), n_ff: 128, ..config() };
    for (dtype, tolerance, apart) in [
        // candle rounds sums of activations to f16, which turns what is rounded to int8 after them.
        (GgmlDType::Q4_1, Q8_TOLERANCE, Q8_TOLERANCE),
        (GgmlDType::Q8_0, Q8_TOLERANCE, 0.02),
        (GgmlDType::F16, F32_TOLERANCE, F32_TOLERANCE),
        (GgmlDType::BF16, F32_TOLERANCE, F32_TOLERANCE),
    ] {
        let mut weights = Seeded::new(&config, dtype);
        weights.matrix("output.weight", config.n_vocab, config.n_embd);
        check_device(&config, weights.insert("rope_freqs.weight", vec![1.5; 8]), CacheType::F32, tolerance, apart);
    }
    check_device(
        &config,
        Seeded::new(&config, GgmlDType::F32),
        CacheType::F16,
        F16_CACHE_TOLERANCE,
        F16_CACHE_TOLERANCE,
    );
}

#[test]
fn a_cache_on_a_device_grows_and_forgets() {
    let mut weights = Seeded::new(&config(), GgmlDType::F32);
    let model = Llama::on_device(config(), &mut weights, CacheType::F16, &Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..600).map(|i| i * 7 % 50).collect();
    let (mut cache, row_bytes) = (model.new_cache(), 2 * 2 * 32 * 2);
    assert_eq!((cache.bytes(), cache.kind()), (0, CacheType::F16));
    let mut logits = Vec::new();
    for (portion, capacity) in [(0..200, 256), (200..256, 256), (256..257, 512), (257..600, 600)] {
        logits = model.logits(&tokens[portion], &mut cache).unwrap();
        assert_eq!(cache.bytes(), capacity * row_bytes);
    }
    let close = |got: &[f32], truth: &[f32]| {
        let truth: Vec<f64> = truth.iter().map(|&v| v.into()).collect();
        assert!(relative_error(got, &truth) <= F16_CACHE_TOLERANCE);
    };
    close(&logits, &model.logits(&tokens, &mut model.new_cache()).unwrap());
    let error = model.logits(&[1], &mut cache).unwrap_err();
    assert_eq!((error.kind(), cache.len()), (ErrorKind::ContextOverflow, 600));
    cache.truncate(100);
    model.logits(&[7, 7, 7], &mut cache).unwrap();
    cache.truncate(100);
    close(&model.logits(&tokens[100..], &mut cache).unwrap(), &logits);
}

#[test]
fn what_a_device_cannot_do_is_refused() {
    let mut weights = Seeded::new(&config(), GgmlDType::F32);
    let error = Llama::on_device(config(), &mut weights, CacheType::Q8_0, &Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = Llama::on_device(
        config(),
        &mut weights.clone().insert("output.weight", vec![1.0]),
        CacheType::F32,
        &Device::Cpu,
    );
    assert_eq!(error.unwrap_err().to_string(), "reading tensor output.weight: expected shape [50, 64], got [1]");
    let model = Llama::on_device(config(), &mut weights, CacheType::F32, &Device::Cpu).unwrap();
    let mut elsewhere = weights.model(&config()).new_cache();
    let error = model.logits(&TOKENS, &mut elsewhere).unwrap_err();
    assert_eq!((error.kind(), elsewhere.len()), (ErrorKind::Internal, 0));
    model.forward(&mut [], &mut Workspace::default()).unwrap();
}
