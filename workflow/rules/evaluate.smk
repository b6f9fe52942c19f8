rule evaluate:
    input:
        pred="data/pred/{model}/{dataset}",
        masks=masks_of,
    output:
        csv=report(
            "results/{model}/{dataset}/metrics.csv",
            category="2. Metrics per case",
            labels={"result": "{model} / {dataset}"},
            caption="../report/metrics.rst",
        ),
        json="results/{model}/{dataset}/metrics.json",
    log:
        text="logs/steps/evaluate/{model}/{dataset}.log",
        events="logs/steps/evaluate/{model}/{dataset}.jsonl",
    benchmark:
        "logs/steps/evaluate/{model}/{dataset}.tsv"
    container:
        LEARNER.image.url
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=0,
    params:
        identity=identity("evaluate"),
        copier=told(copier),
        options=told(
            lambda w: commands.evaluate(model_of(w), dataset_of(w), LEARNER.is_ours)
        ),
        module=told(lambda w: LEARNER.module),
    message:
        "evaluate {wildcards.model} on {wildcards.dataset}"
    shell:
        "python -m {params.module}.eval --path_pred {input.pred} {params.options}"
        " --out_csv {output.csv} --out_json {output.json}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
