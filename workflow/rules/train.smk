# A training works in fold_K.partial, which is no output and so never removed by Snakemake: a killed one goes on there.
rule train:
    input:
        data="data/preprocessed/{model}",
        plan="logs/{model}/plan.yaml",
        start=optional("fine_tune"),
        earlier=earlier_run_of,
    output:
        directory("logs/{model}/fold_{fold}"),
    log:
        text="logs/steps/train/{model}/fold_{fold}.log",
        events="logs/steps/train/{model}/fold_{fold}.jsonl",
    benchmark:
        "logs/steps/train/{model}/fold_{fold}.tsv"
    wildcard_constraints:
        model=wildcard(PROJECT.trainable()),
    container:
        LEARNER.image.url
    # More than small machines have: Snakemake then gives all cores to one training, and the folds take turns.
    threads: 8
    resources:
        mem_mb=16000,
        runtime=2880,
        gpu=PROJECT.gpu,
    params:
        identity=identity("train"),
        copier=told(copier),
        options=told(
            lambda w: commands.train(
                model_of(w),
                PROJECT.gpu if LEARNER.is_ours else 0,
                earlier_run_of(w),
            )
        ),
        module=told(lambda w: LEARNER.module),
    message:
        "train {wildcards.model}, fold {wildcards.fold}"
    shell:
        "python -m {params.module}.train --config {input.plan} --data_dir {input.data} --fold {wildcards.fold}"
        " --run_dir {output} {params.options} --threads {threads}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
