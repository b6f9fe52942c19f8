# What `snakemake --report FILE` shows is marked here and in evaluate.smk, one label an entry: of a second label with two
# values it makes a switch, which turns the page white where not every pair exists.
rule report:
    input:
        report_files,
    message:
        "all that the report shows is there"


rule curves:
    input:
        runs=runs_of,
    output:
        report(
            "results/{model}/curves.png",
            category="3. Learning curves",
            labels={"model": "{model}"},
            caption="../report/curves.rst",
        ),
    log:
        text="logs/steps/curves/{model}.log",
        events="logs/steps/curves/{model}.jsonl",
    benchmark:
        "logs/steps/curves/{model}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        identity=identity("curves"),
        copier=told(copier),
    message:
        "draw the learning curves of {wildcards.model}"
    shell:
        "python -m biom3d.report curves --log {input.runs} --out {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"


rule overlay:
    input:
        pred="data/pred/{model}/{dataset}",
        images=images_of,
        masks=masks_of,
        metrics=metrics_of,
        quality=quality_of,
    output:
        report(
            directory("results/{model}/{dataset}/overlays"),
            patterns=["{picture}.png"],
            category="4. Pictures",
            subcategory="{model}",
            labels={"picture": "{dataset} / {picture}"},
            caption="../report/overlay.rst",
        ),
    log:
        text="logs/steps/overlay/{model}/{dataset}.log",
        events="logs/steps/overlay/{model}/{dataset}.jsonl",
    benchmark:
        "logs/steps/overlay/{model}/{dataset}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=0,
    params:
        identity=identity("overlay"),
        copier=told(copier),
        options=told(
            lambda w: commands.overlay(
                model_of(w), dataset_of(w), metrics_of(w), quality_of(w)
            )
        ),
    message:
        "draw overlays of {wildcards.dataset} by {wildcards.model}"
    shell:
        "python -m biom3d.report overlay --path_pred {input.pred} {params.options} --out_dir {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"


rule summary:
    input:
        metrics=for_evaluated_pairs("results/{model}/{dataset}/metrics.json"),
    output:
        report(
            "results/summary.csv",
            category="1. Summary",
            labels={"table": "all data sets and models"},
            caption="../report/summary.rst",
        ),
    log:
        text="logs/steps/summary/all.log",
        events="logs/steps/summary/all.jsonl",
    benchmark:
        "logs/steps/summary/all.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        identity=identity("summary"),
        copier=told(copier),
    message:
        "summarise the metrics"
    shell:
        "python -m biom3d.report summary --metrics {input.metrics} --out {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
