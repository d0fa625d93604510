"""What each field of a Predictor and a ServingRuntime means, by model and field, in Markdown.

The one place for it: the JSON Schemas and the tables of docs are made from it.
"""

from collections.abc import Mapping

from mesh.wire.manifests import API_VERSION, MAX_NAME_CHARS

KUBERNETES = "As Kubernetes has it; nothing here looks at it."
ADDED = "Added by a server that printed the resource; taken, and not looked at."
RUNTIME = (
    "The ServingRuntime that is to serve it, also where that one does not select the type by"
    " itself."
)

OF_KUBERNETES = {
    "Metadata": (
        "creationTimestamp",
        "finalizers",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ),
    "Container": (
        "envFrom",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "resizePolicy",
        "restartPolicy",
        "securityContext",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeDevices",
        "volumeMounts",
    ),
    "ContainerPort": ("hostIP", "hostPort", "protocol"),
    "EnvVar": ("valueFrom",),
    "Resources": ("claims",),
    "ServingRuntimeFields": (
        "affinity",
        "annotations",
        "imagePullSecrets",
        "labels",
        "nodeSelector",
        "tolerations",
        "volumes",
    ),
}

TEXTS: Mapping[str, str] = {
    **{
        f"{model}.{field}": ADDED if model == "Metadata" else KUBERNETES
        for model, fields in OF_KUBERNETES.items()
        for field in fields
    },
    "PredictorManifest.apiVersion": f"`{API_VERSION}`.",
    "PredictorManifest.kind": "`Predictor`.",
    "PredictorManifest.metadata": "The Predictor's name.",
    "PredictorManifest.spec": "Which model answers.",
    "PredictorManifest.status": ADDED,
    "Metadata.name": "The resource's name; a Predictor's is what clients send as `model_name`."
    " Lower case letters, digits, `-` and `.`, as a DNS name,"
    f" at most {MAX_NAME_CHARS} characters.",
    "Metadata.namespace": KUBERNETES,
    "Metadata.labels": KUBERNETES,
    "Metadata.annotations": KUBERNETES,
    "Spec.modelType": "What kind of model it is; a runtime must support it.",
    "Spec.path": "The object, or the prefix of the objects, that the model consists of.",
    "Spec.schemaPath": "A JSON object in the same bucket that describes the model's inputs and"
    " outputs; `ModelMetadata` answers from it.",
    "Spec.storage": "Where the model's files are.",
    "Spec.storageUri": "`s3://<bucket>/<path>`, in place of bucket and path; or `file:///<path>`, "
    "in place of all of `storage`.",
    "Spec.runtime": RUNTIME,
    "Spec.minCopies": "How many copies there are at least; no effect on one machine.",
    "Spec.maxCopies": "How many copies there are at most; no effect on one machine.",
    "ModelTypeField.name": "The model's framework, such as `sklearn`, `xgboost` or `lightgbm`; a"
    " runtime must support it.",
    "ModelTypeField.version": "The framework's version. Without it any runtime of that type will"
    " do.",
    "RuntimeField.name": RUNTIME,
    "Storage.s3": "An S3 bucket, in the older form; the path is `spec.path` then.",
    "Storage.key": "The storage key, in the newer form. Without it `default_<type>` where"
    " `parameters.type` is given, else `default`.",
    "Storage.path": "As `spec.path`, in the newer form.",
    "Storage.schemaPath": "As `spec.schemaPath`, in the newer form.",
    "Storage.parameters": "Win over the fields of the storage key: `type`, `region`, `bucket`"
    " and `default_bucket`, no others.",
    "Storage.persistentVolumeClaim": "Not supported.",
    "S3.secretKey": "The storage key: the name of a file in the storage-config folder.",
    "S3.bucket": "Wins over the bucket of the storage key.",
    "ServingRuntimeManifest.apiVersion": f"`{API_VERSION}`.",
    "ServingRuntimeManifest.kind": "`ServingRuntime`.",
    "ServingRuntimeManifest.metadata": "The runtime's name.",
    "ServingRuntimeManifest.spec": "The model server and what it serves.",
    "ServingRuntimeManifest.status": ADDED,
    "ServingRuntimeFields.containers": "The model server, named as `builtInAdapter.serverType`,"
    " and what stands beside it.",
    "ServingRuntimeFields.supportedModelTypes": "The types of models that it can load.",
    "ServingRuntimeFields.supportedModelFormats": "The newer name of `supportedModelTypes`.",
    "ServingRuntimeFields.multiModel": "Whether it holds several models: it must.",
    "ServingRuntimeFields.disabled": "Whether it is not to be used.",
    "ServingRuntimeFields.grpcEndpoint": "Where an adapter of the container's own listens:"
    " `port:<number>` or `unix:/<path>`.",
    "ServingRuntimeFields.grpcDataEndpoint": "Where the model server answers inference:"
    " `port:<number>` or `unix:/<path>`.",
    "ServingRuntimeFields.builtInAdapter": "The adapter of ours that loads models into it.",
    "ServingRuntimeFields.storageHelper": "The pulling of model files before they are loaded.",
    "ServingRuntimeFields.replicas": "How many pods there are; one on one machine.",
    "StorageHelper.disabled": "Whether the runtime pulls its files itself.",
    "BuiltInAdapter.serverType": "Which adapter: the model server's kind, such as `mlserver`.",
    "BuiltInAdapter.runtimeManagementPort": "The port of the server's own load API.",
    "BuiltInAdapter.memBufferBytes": "Bytes of the container's memory that are not for models.",
    "BuiltInAdapter.modelLoadingTimeoutMillis": "Milliseconds that a load may take.",
    "BuiltInAdapter.env": "Settings of the adapter.",
    "SupportedType.name": "The framework, such as `sklearn`.",
    "SupportedType.version": "Its version.",
    "SupportedType.autoSelect": "Whether models of this type come here without naming the runtime.",
    "SupportedType.priority": "Which of several runtimes goes first.",
    "Container.name": "Its name.",
    "Container.image": "Its image; on one machine the program of the command is run instead.",
    "Container.command": "The program and its first arguments.",
    "Container.args": "Its further arguments.",
    "Container.env": "Its environment.",
    "Container.ports": "The ports that it listens on.",
    "Container.resources": "Its memory and processors.",
    "Container.workingDir": "The folder that it starts in.",
    "ContainerPort.containerPort": "The number.",
    "ContainerPort.name": "Its name.",
    "EnvVar.name": "The variable.",
    "EnvVar.value": "Its value.",
    "EnvText.name": "The variable.",
    "EnvText.value": "Its value.",
    "Resources.requests": "What it is sure to get, such as `memory: 1Gi`.",
    "Resources.limits": "What it may not exceed.",
}
