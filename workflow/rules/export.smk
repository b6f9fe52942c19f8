rule export_labels:
    input:
        pred="data/pred/{model}/{dataset}",
        images=images_of,
    output:
        directory("results/{model}/{dataset}/labels"),
    log:
        text="logs/steps/export_labels/{model}/{dataset}.log",
        events="logs/steps/export_labels/{model}/{dataset}.jsonl",
    benchmark:
        "logs/steps/export_labels/{model}/{dataset}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=0,
    params:
        identity=identity("export_labels"),
        copier=told(copier),
        options=told(lambda w: commands.export_labels(model_of(w), dataset_of(w))),
    message:
        "export the labels of {wildcards.dataset} by {wildcards.model}"
    shell:
        "python -m biom3d.export labels --path_pred {input.pred} {params.options} --out_dir {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"


rule export_model:
    input:
        runs=runs_of,
    output:
        "results/{model}/{model}.zip",
    log:
        text="logs/steps/export_model/{model}.log",
        events="logs/steps/export_model/{model}.jsonl",
    benchmark:
        "logs/steps/export_model/{model}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=0,
    params:
        identity=identity("export_model"),
        copier=told(copier),
    message:
        "pack {wildcards.model}"
    shell:
        "python -m biom3d.export model --log {input.runs} --out {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
