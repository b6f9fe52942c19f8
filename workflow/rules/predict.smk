rule predict:
    input:
        check=check_of,
        images=images_of,
        runs=runs_of,
        earlier=earlier_prediction_of,
    output:
        directory("data/pred/{model}/{dataset}"),
    log:
        text="logs/steps/predict/{model}/{dataset}.log",
        events="logs/steps/predict/{model}/{dataset}.jsonl",
    benchmark:
        "logs/steps/predict/{model}/{dataset}.tsv"
    container:
        LEARNER.image.url
    threads: 8
    resources:
        mem_mb=16000,
        runtime=1440,
        gpu=min(PROJECT.gpu, 1),  # a prediction uses one
    params:
        identity=identity("predict"),
        copier=told(copier),
        runs=told(lambda w: commands.runs(model_of(w))),
        options=told(
            lambda w: commands.predict(
                model_of(w), dataset_of(w), LEARNER.is_ours, earlier_prediction_of(w)
            )
        ),
        module=told(lambda w: LEARNER.module),
    message:
        "predict {wildcards.dataset} with {wildcards.model}"
    shell:
        "python -m {params.module}.pred --log {params.runs} --out_dir {output} {params.options} --threads {threads}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
