/* What the dynamic linker looks for when the bindings of TensorRT 11 are imported, and nothing more.

   Compiled under the names of NVIDIA's three libraries, it lets a process that has none of them read which names and
   signatures the bindings have. Every function answers null or 0; nothing of TensorRT can be made with it. */

#define ABSENT(name) \
    void *name(void) { return 0; }

ABSENT(createInferBuilder_INTERNAL)
ABSENT(createInferRefitter_INTERNAL)
ABSENT(createInferRuntime_INTERNAL)
ABSENT(createNvOnnxParserRefitter_INTERNAL)
ABSENT(createNvOnnxParser_INTERNAL)
ABSENT(getBuilderPluginRegistry)
ABSENT(getNvOnnxParserVersion)
ABSENT(getPluginRegistry)
ABSENT(initLibNvInferPlugins)
