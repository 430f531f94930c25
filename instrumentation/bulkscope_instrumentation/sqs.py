from bulkscope._instrumentor import Instrumentor
class SqsInstrumentor(Instrumentor):
    module = "botocore"
    def patch(self, module): ...
