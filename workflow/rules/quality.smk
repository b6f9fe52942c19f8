# What may be wrong where no truth tells: a table for each prediction, and one of all, the most suspicious volume first.
rule quality:
    input:
        pred="data/pred/{model}/{dataset}",
        images=images_of,
        runs=runs_of,
    output:
        "results/{model}/{dataset}/quality.csv",
    log:
        text="logs/steps/quality/{model}/{dataset}.log",
        events="logs/steps/quality/{model}/{dataset}.jsonl",
    benchmark:
        "logs/steps/quality/{model}/{dataset}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=0,
    params:
        identity=identity("quality"),
        copier=told(copier),
        options=told(lambda w: commands.quality(model_of(w), dataset_of(w))),
    message:
        "look at {wildcards.dataset} by {wildcards.model} without truth"
    shell:
        "python -m biom3d.quality --path_pred {input.pred} {params.options} --out_csv {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"


rule qualities:
    input:
        tables=for_pairs("results/{model}/{dataset}/quality.csv"),
    output:
        "results/quality.csv",
    log:
        text="logs/steps/qualities/all.log",
        events="logs/steps/qualities/all.jsonl",
    benchmark:
        "logs/steps/qualities/all.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        identity=identity("qualities"),
        copier=told(copier),
    message:
        "list all volumes that look unusual"
    shell:
        "python -m biom3d.quality --tables {input.tables} --out_csv {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
